"""Tone: one colour map for the whole page, judged from its thumbnail.

After Gharbi et al., 'Deep Bilateral Learning for Real-Time Image Enhancement', 2017
(arXiv:1707.02880), and of it the global branch alone; no code or weights of the authors are used.

What differs: the map is a monotone curve, or a gain and an offset, for each channel by itself, the
same at every pixel, so that tiles and patches of a page share one tone; the thumbnail's histograms
are given beside its convolutions, since they say where paper and ink lie without being learned.

Why at all: a scan's colours are off as a whole, by scanner, paper and ink, and a small crop of
plain colour cannot tell tinted paper from ink.
"""

from contextlib import nullcontext
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, widened
from kbdenoise.models.reading import has_all
from kbdenoise.models.spec import PAGE_SIDE, Architecture, Recognised, State

BINS = 16  # pieces of a histogram; it has one value more
SLOPE_1 = 0.5413248546129181  # log(e - 1): softplus makes 1 of it


class Tone(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1] of any size; the output is not clamped.

    A small encoder of `width` channels looks at the page's thumbnail and sets, for each channel,
    a monotone curve of `knots` straight pieces of equal width over [0, 1] ("curve", continued with
    the slopes of its ends), or a gain and an offset ("affine"; `knots` is not used).

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 16,
        kind: Literal["curve", "affine"] = "curve",
        knots: int = 16,
    ) -> None:
        super().__init__()
        check_counts("tone", channels=channels, width=width, knots=knots)
        if kind not in ("curve", "affine"):
            raise SettingsError(f"kind of tone is {kind!r}", hint="choose 'curve' or 'affine'")
        self.channels = channels
        self.kind = kind
        widths = (channels, width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*layers)
        self.mix = nn.Linear(4 * width + channels * (BINS + 1), 4 * width)
        values = channels * (knots + 1 if kind == "curve" else 2)
        last = nn.Linear(4 * width, values)
        nn.init.zeros_(last.weight)  # untrained, it returns its input
        nn.init.zeros_(last.bias)
        if kind == "curve":
            self.curve = last
        else:
            self.affine = last

    def forward(self, noisy: Tensor, page: Tensor | None = None) -> Tensor:
        """Map the colours: [B, channels, H, W] -> the same shape, in fp32 under autocast.

        `page` [B, channels, PAGE_SIDE, PAGE_SIDE] is the thumbnail of the whole page that `noisy`
        was cut from; None means that `noisy` is the whole page.
        """
        check_image_batch(noisy, channels=self.channels, multiple=1, model="tone")
        if page is None:
            page = _thumbnail(noisy)
        _check_page(page, noisy)
        values = self._values(page).unflatten(1, (self.channels, -1))  # [B, C, knots + 1 or 2]
        values = values[..., None, None]  # [B, C, n] -> [B, C, n, 1, 1]
        return (_curve if self.kind == "curve" else _affine)(widened(noisy), values)

    def _values(self, page: Tensor) -> Tensor:
        """What sets the map: [B, C, T, T] -> [B, C * n], zero for the identity.

        Always in fp32 (or fp64): in eight bits of mantissa a page is known to a grey level only.
        """
        kind = page.device.type
        full = torch.autocast(kind, enabled=False) if _autocasts(kind) else nullcontext()
        with full:
            page = widened(page)
            seen = self.encoder(2 * page - 1).mean((2, 3))  # [B, C, T, T] -> [B, 4 * width]
            known = torch.cat([seen, _histograms(page)], dim=1)
            last = self.curve if self.kind == "curve" else self.affine
            return widened(last(F.relu(self.mix(known))))


def _thumbnail(noisy: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, PAGE_SIDE, PAGE_SIDE]."""
    if noisy.device.type == "mps":  # which pools to sides only that divide the picture's
        return F.adaptive_avg_pool2d(noisy.cpu(), PAGE_SIDE).to(noisy.device)
    return F.adaptive_avg_pool2d(noisy, PAGE_SIDE)


def _curve(x: Tensor, values: Tensor) -> Tensor:
    """Monotone pieces from an offset and as many slopes, [B, C, 1 + n, 1, 1], zero for identity.

    A piece at a time, as a sum of bends: a table of all pieces at every pixel would take n times
    the memory, and looking them up has no gradient that is quick on a CPU.
    """
    offset, slopes = values[:, :, 0], F.softplus(values[:, :, 1:] + SLOPE_1)
    pieces = slopes.shape[2]
    y = offset + slopes[:, :, 0] * x
    for i in range(1, pieces):
        bend, place = slopes[:, :, i] - slopes[:, :, i - 1], i / pieces
        y = torch.addcmul(y - bend * place, bend, x.clamp(min=place))
    return y


def _affine(x: Tensor, values: Tensor) -> Tensor:
    """An offset and a gain, [B, C, 2, 1, 1], zero for identity."""
    return values[:, :, 0] + (1 + values[:, :, 1]) * x


def _histograms(page: Tensor) -> Tensor:
    """Soft histograms: [B, C, T, T] -> [B, C * (bins + 1)], each channel's mean 1."""
    x = page.flatten(2)[:, :, None] * BINS  # [B, C, T, T] -> [B, C, 1, T * T]
    places = torch.arange(BINS + 1, dtype=x.dtype, device=x.device)[:, None]  # [bins + 1, 1]
    shares = F.relu(1 - (x - places).abs()).mean(3)  # -> [B, C, bins + 1]
    return (BINS + 1) * shares.flatten(1)


def _autocasts(device_type: str) -> bool:
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def _check_page(page: Tensor, noisy: Tensor) -> None:
    wanted = (*noisy.shape[:2], PAGE_SIDE, PAGE_SIDE)
    if tuple(page.shape) != wanted:
        raise SettingsError(
            f"tone cannot take a thumbnail of shape {list(page.shape)}",
            hint=f"give one a picture: {list(wanted)}",
        )


class ToneThen(nn.Module):
    """A tone stage and, behind it, another network that restores what the colour map leaves.

    `name` and `multiple` are what the second one is called and what its sides are multiples of.
    """

    def __init__(self, tone: Tone, restorer: nn.Module, *, name: str, multiple: int) -> None:
        super().__init__()
        self.tone = tone
        self.restorer = restorer
        self.name = name
        self.multiple = multiple

    def forward(self, noisy: Tensor, page: Tensor | None = None) -> Tensor:
        """Restore [B, channels, H, W] in [0, 1]; `page` as `Tone` takes it."""
        channels = self.tone.channels
        check_image_batch(noisy, channels=channels, multiple=self.multiple, model=self.name)
        restored: Tensor = self.restorer(self.tone(noisy, page))
        return restored


def _recognise(state: State) -> Recognised | None:
    kinds = [kind for kind in ("curve", "affine") if f"{kind}.weight" in state]
    if not has_all(state, "encoder.0.weight", "encoder.6.weight", "mix.weight") or not kinds:
        return None
    width, channels = state["encoder.0.weight"].shape[:2]
    values = state[f"{kinds[0]}.weight"].shape[0]
    if values % channels or values < 2 * channels or len(kinds) > 1:
        raise ValueError(f"{values} values of {' and '.join(kinds)} for {channels} channels")
    hyperparameters = {"width": width, "kind": kinds[0]}
    if kinds[0] == "curve":
        hyperparameters["knots"] = values // channels - 1
    return Recognised(channels=channels, hyperparameters=hyperparameters, state=state)


ARCHITECTURE = Architecture(build=Tone, recognise=_recognise, receptive_field=lambda h: 0)
