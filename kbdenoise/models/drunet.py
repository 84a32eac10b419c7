"""DRUNet: a residual U-Net without offsets that is told the noise level.

Zhang et al., 'Plug-and-Play Image Restoration with Deep Denoiser Prior', 2021 (arXiv:2008.13751).
Authors' code: https://github.com/cszn/DPIR and, with the training and the weights,
https://github.com/cszn/KAIR, where it is called UNetRes (both MIT).

Names of parameters and their shapes are KAIR's, so its weights load. There are no offsets at all:
scaled values (and their noise level with them) give scaled results, which is why the network does
well at noise levels that it was never trained for. What differs: the noise level is a setting and
the network adds its map itself; without `noise_map` the network is blind; a residual block starts
as the identity (Goyal et al., 2017, arXiv:1706.02677). As published there is no input skip, so an
untrained network does not return its input. The authors' variants that pool, or that enlarge by
interpolation or pixel shuffle, are refused.
"""

from itertools import count
from math import isfinite

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, check_levels
from kbdenoise.models.reading import has_all, length
from kbdenoise.models.spec import Architecture, Hyperparameters, Recognised, State

_NOISE_LEVEL = 15.0  # grey levels; of the mildest published benchmark
_LOUDEST = 255.0


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(x)))` with 3x3 convolutions without offsets; the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(last.weight)
        self.res = nn.Sequential(first, nn.ReLU(inplace=True), last)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x + self.res(x)


class DRUNet(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of `2 ** levels`. Level i has `width * 2**i` channels and `blocks`
    residual blocks on either side, as has the middle. `noise_level` is the standard deviation of
    the noise that is expected, in grey levels of 0..255; it is seen only with a `noise_map`.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 64,
        levels: int = 3,
        blocks: int = 4,
        noise_map: bool = True,
        noise_level: float = _NOISE_LEVEL,
    ) -> None:
        super().__init__()
        check_counts("drunet", channels=channels, width=width, blocks=blocks)
        check_levels("drunet", levels)
        _check_noise(noise_map=noise_map, noise_level=noise_level)
        self.channels = channels
        self.levels = levels
        self.noise_map = noise_map
        self.noise_level = noise_level
        self.m_head = nn.Conv2d(channels + noise_map, width, 3, padding=1, bias=False)
        # KAIR's names hold the level's number and count from 1, the finest.
        for level in range(1, levels + 1):
            fine = width * 2 ** (level - 1)
            down = nn.Conv2d(fine, 2 * fine, 2, stride=2, bias=False)
            up = nn.ConvTranspose2d(2 * fine, fine, 2, stride=2, bias=False)
            self.add_module(f"m_down{level}", nn.Sequential(*_blocks(fine, blocks), down))
            self.add_module(f"m_up{level}", nn.Sequential(up, *_blocks(fine, blocks)))
        self.m_body = nn.Sequential(*_blocks(width * 2**levels, blocks))
        self.m_tail = nn.Conv2d(width, channels, 3, padding=1, bias=False)

    def forward(self, noisy: Tensor) -> Tensor:
        """Predict the clean image: [B, channels, H, W] -> the same shape."""
        multiple = 2**self.levels
        check_image_batch(noisy, channels=self.channels, multiple=multiple, model="drunet")
        x = noisy
        if self.noise_map:
            level = torch.full_like(noisy[:, :1], self.noise_level / _LOUDEST)
            x = torch.cat([noisy, level], dim=1)  # [B, channels + 1, H, W]
        x = self.m_head(x)
        skips = [x]
        for i in range(1, self.levels + 1):
            x = self.get_submodule(f"m_down{i}")(x)  # [B, c, h, w] -> [B, 2c, h/2, w/2]
            skips.append(x)
        x = self.m_body(x)
        for i in range(self.levels, 0, -1):
            x = self.get_submodule(f"m_up{i}")(x + skips[i])  # [B, 2c, h/2, w/2] -> [B, c, h, w]
        return self.m_tail(x + skips[0])


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


def _check_noise(*, noise_map: bool, noise_level: float) -> None:
    if not (isfinite(noise_level) and 0 <= noise_level <= _LOUDEST):
        raise SettingsError(
            f"noise_level of drunet is {noise_level}",
            hint=f"choose grey levels from 0 to {_LOUDEST:g}, such as {_NOISE_LEVEL:g}",
        )
    if not noise_map and noise_level != _NOISE_LEVEL:
        raise SettingsError(
            f"noise_level of drunet is {noise_level:g}, but without a noise map it is never seen",
            hint="leave noise_level out, or set noise_map to true",
        )


def _recognise(state: State) -> Recognised | None:
    """The tensors do not hold a noise level: its default is taken.

    KAIR does not number the body's block where it is the only one.
    """
    state = {_numbered(name): tensor for name, tensor in state.items()}
    if not has_all(state, "m_head.weight", "m_tail.weight", "m_body.0.res.0.weight"):
        return None
    width, inputs = state["m_head.weight"].shape[:2]
    channels = state["m_tail.weight"].shape[0]
    if inputs not in (channels, channels + 1):
        raise ValueError(f"{inputs} channels go in and {channels} come out")
    blocks = length(state, "m_body.{}.res.0.weight")
    levels = next(i for i in count() if f"m_down{i + 1}.0.res.0.weight" not in state)
    for level in range(1, levels + 1):
        _check_steps(state, level=level, blocks=blocks)
    return Recognised(
        channels=channels,
        hyperparameters={
            "width": width,
            "levels": levels,
            "blocks": blocks,
            "noise_map": inputs > channels,
            "noise_level": _NOISE_LEVEL,
        },
        state=state,
    )


def _numbered(name: str) -> str:
    return name.replace("m_body.", "m_body.0.", 1) if name.startswith("m_body.res.") else name


def _check_steps(state: State, *, level: int, blocks: int) -> None:
    """Raises ValueError where a level does not shrink and enlarge by 2x2 convolutions."""
    steps = {
        "shrinks by pooling": (f"m_down{level}.{blocks}.weight", f"m_down{level}.{blocks + 1}"),
        "enlarges by interpolation": (f"m_up{level}.0.weight", f"m_up{level}.1"),
    }
    for deed, (name, instead) in steps.items():
        if name not in state and f"{instead}.weight" in state:
            raise ValueError(
                f"level {level} {deed}; only strided and transposed convolutions are known"
            )
        kernel = tuple(state[name].shape[2:])
        if kernel == (2, 2):
            continue
        if name.startswith("m_up") and kernel == (3, 3):
            raise ValueError(
                f"level {level} enlarges by pixel shuffle; only transposed convolutions are known"
            )
        raise ValueError(f"{name} has a kernel of {list(kernel)} instead of [2, 2]")


def _radius(h: Hyperparameters) -> int:
    """From the middle outwards: two 3x3 convolutions a block, a level doubles, head and tail."""
    radius: int = 2 * h["blocks"]
    for _ in range(h["levels"]):
        radius = 2 * radius + 1 + 4 * h["blocks"]
    return radius + 2


ARCHITECTURE = Architecture(
    build=DRUNet,
    recognise=_recognise,
    receptive_field=_radius,
    multiple=lambda h: int(2 ** h["levels"]),
)
