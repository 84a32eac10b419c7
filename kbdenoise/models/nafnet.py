"""NAFNet: a U-shape of gated convolutions without activation functions.

Chen et al., 'Simple Baselines for Image Restoration', 2022 (arXiv:2204.04676).
Authors' code and weights: https://github.com/megvii-research/NAFNet (MIT).

Names of parameters and their shapes are the authors', so their checkpoints load. What differs:
see `u_shape` for the skeleton; the branches' weights `beta` and `gamma` start at 0 as the authors'
do, although the last convolution starts at zero too: Adam makes up for it (width 16, 200 steps on
photographs with noise of sigma 25: 0 and 0.01 within 0.02 dB). `pool_window` makes what the
authors call NAFNetLocal.
"""

import torch
from torch import Tensor, nn

from kbdenoise.models.layers import LayerNorm2d, MeanPool, SimpleGate, fold_scale, scaled
from kbdenoise.models.spec import Architecture, Recognised, State
from kbdenoise.models.u_shape import (
    UShape,
    check_pool_window,
    read_u_shape,
    u_shape_blocks,
    u_shape_multiple,
)


def nafnet(
    *,
    channels: int = 3,
    width: int = 32,
    encoder_blocks: tuple[int, ...] = (2, 2, 4, 8),
    middle_blocks: int = 12,
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 2),
    pool_window: int = 0,
) -> UShape:
    """NAFNet with fresh weights; see `UShape` for the numbers of the skeleton.

    `pool_window` px, at full resolution, is the side of the window over which the channel
    attention pools in evaluation; 0 pools the whole image, as training always does. The authors
    take 1.5 times the side of their training patches: 384 px.

    Raises SettingsError for a combination that cannot be built.
    """
    check_pool_window("nafnet", pool_window, levels=len(encoder_blocks))
    return UShape(
        name="nafnet",
        channels=channels,
        width=width,
        encoder_blocks=encoder_blocks,
        middle_blocks=middle_blocks,
        decoder_blocks=decoder_blocks,
        block=lambda c: NAFBlock(c, pool_window=pool_window * width // c),
    )


class NAFBlock(nn.Module):
    """Depthwise mixing with channel attention, then a gated feed-forward part, both as residuals.

    [B, c, H, W] -> [B, c, H, W]. `pool_window` counts positions of the block's own level.
    """

    def __init__(self, c: int, *, pool_window: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.beta: nn.Parameter | None = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma: nn.Parameter | None = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(MeanPool(window=pool_window), nn.Conv2d(c, c, 1))
        self.conv3 = nn.Conv2d(c, c, 1)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.gate = SimpleGate()

    def forward(self, x: Tensor) -> Tensor:
        """Both residual steps."""
        mixed = self.gate(self.conv2(self.conv1(self.norm1(x))))  # [B, 2c, H, W] -> [B, c, H, W]
        x = x + scaled(self.conv3(mixed * self.sca(mixed)), self.beta)
        return x + scaled(self.conv5(self.gate(self.conv4(self.norm2(x)))), self.gamma)

    def fold_scales(self) -> None:
        """Multiply both scales into the convolutions before them."""
        fold_scale(self.conv3, self.beta)
        fold_scale(self.conv5, self.gamma)
        self.beta = self.gamma = None


def _recognise(state: State) -> Recognised | None:
    blocks = u_shape_blocks(state)
    ours = any(f"{block}.conv2.weight" in state for block in blocks)  # KBNet-S has conv2.0.weight
    if not ours or not any(f"{block}.sca.1.weight" in state for block in blocks):
        return None
    channels, hyperparameters = read_u_shape(state)
    for block in blocks:
        _check_block(state, block)
    return Recognised(channels=channels, hyperparameters=hyperparameters, state=state)


def _check_block(state: State, block: str) -> None:
    """Both widenings of a block are by two; the tensors could say otherwise."""
    c = state[f"{block}.norm1.weight"].shape[0]
    for layer in ("conv1", "conv4"):
        outputs = state[f"{block}.{layer}.weight"].shape[0]
        if outputs != 2 * c:
            raise ValueError(f"{block}.{layer} has {outputs} outputs for {c} channels, not {2 * c}")


ARCHITECTURE = Architecture(
    build=nafnet,
    recognise=_recognise,
    # A window bounds it in principle, by half a window a block: thousands of px, and no use.
    receptive_field=lambda h: None,
    multiple=u_shape_multiple,
)
