"""The table of models: which there are, who wrote them, and which sizes have names.

Importing this module does not import torch; a model's file is imported when its entry is asked
for its architecture. A new model is written in its own file and gets one entry in `MODELS`.
"""

from typing import Any

from kbdenoise.errors import SettingsError, nearest
from kbdenoise.models.spec import Architecture, Hyperparameters, ModelSpec


def _kbnet_s() -> Architecture:
    from kbdenoise.models.kbnet_s import ARCHITECTURE

    return ARCHITECTURE


def _kbnet_l() -> Architecture:
    from kbdenoise.models.kbnet_l import ARCHITECTURE

    return ARCHITECTURE


def _nafnet() -> Architecture:
    from kbdenoise.models.nafnet import ARCHITECTURE

    return ARCHITECTURE


def _restormer() -> Architecture:
    from kbdenoise.models.restormer import ARCHITECTURE

    return ARCHITECTURE


def _res_unet() -> Architecture:
    from kbdenoise.models.res_unet import ARCHITECTURE

    return ARCHITECTURE


def _unet() -> Architecture:
    from kbdenoise.models.unet import ARCHITECTURE

    return ARCHITECTURE


def _drunet() -> Architecture:
    from kbdenoise.models.drunet import ARCHITECTURE

    return ARCHITECTURE


def _dncnn() -> Architecture:
    from kbdenoise.models.dncnn import ARCHITECTURE

    return ARCHITECTURE


def _srresnet() -> Architecture:
    from kbdenoise.models.srresnet import ARCHITECTURE

    return ARCHITECTURE


def _pix2pix() -> Architecture:
    from kbdenoise.models.pix2pix import ARCHITECTURE

    return ARCHITECTURE


def _tone() -> Architecture:
    from kbdenoise.models.tone import ARCHITECTURE

    return ARCHITECTURE


def _blocks(
    encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...], **more: Any
) -> Hyperparameters:
    return {
        "encoder_blocks": encoder,
        "middle_blocks": middle,
        "decoder_blocks": decoder,
        **more,
    }


_SIDD = _blocks((2, 2, 4, 8), 12, (2, 2, 2, 2))  # the block counts of KBNet-S and NAFNet
_GOPRO = _blocks((1, 1, 1, 28), 1, (1, 1, 1, 1))  # of NAFNet for deblurring
_DECK = _blocks((2, 3, 4), 4, (4, 3, 2), width=16)
_DECK_4 = _blocks((2, 2, 2, 2), 4, (4, 2, 2, 2), width=16)
_SMALL_TRANSFORMER = {"width": 16, "blocks": (1, 2, 2, 4), "refinement_blocks": 1}

MODELS: dict[str, ModelSpec] = {
    "kbnet-s": ModelSpec(
        architecture=_kbnet_s,
        summary="U-shape with per-pixel mixed kernels; the best quality, for a GPU",
        paper="Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 "
        "(arXiv:2303.02881)",
        source="https://github.com/zhangyi-3/KBNet",
        licence="code and weights MIT",
        tiles="global-pooling",
        channels_last=True,
        sizes={
            "deck": _DECK,
            "small": _blocks((1, 1, 1), 1, (1, 1, 1), width=8),
            "deck-lightweight": {**_DECK, "lightweight": True},
            "deck-4-levels": _DECK_4,
            "deck-4-levels-lightweight": {**_DECK_4, "lightweight": True},
            "sidd": {**_SIDD, "width": 64, "lightweight": True, "ffn_scale": 1.5},
            "gaussian-colour": {**_SIDD, "width": 64},
            "gaussian-gray": {**_SIDD, "width": 64},
        },
        gray_sizes=("gaussian-gray",),
    ),
    "kbnet-l": ModelSpec(
        architecture=_kbnet_l,
        summary="Restormer's U-shape with per-pixel mixed kernels; the largest, for a GPU",
        paper="Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 "
        "(arXiv:2303.02881)",
        source="https://github.com/zhangyi-3/KBNet",
        licence="code and weights MIT",
        tiles="global-pooling",
        channels_last=True,
        sizes={"full": {}, "small": _SMALL_TRANSFORMER},
    ),
    "nafnet": ModelSpec(
        architecture=_nafnet,
        summary="U-shape of gated convolutions; near KBNet's quality at a fraction of its work",
        paper="Chen et al., 'Simple Baselines for Image Restoration', 2022 (arXiv:2204.04676)",
        source="https://github.com/megvii-research/NAFNet",
        licence="code and weights MIT",
        tiles="global-pooling",
        channels_last=True,
        sizes={
            "deck": _DECK_4,
            "sidd-32": {**_SIDD, "width": 32},
            "sidd-64": {**_SIDD, "width": 64},
            "gopro-32": {**_GOPRO, "width": 32},
            "gopro-64": {**_GOPRO, "width": 64},
            "gopro-32-local": {**_GOPRO, "width": 32, "pool_window": 384},
            "gopro-64-local": {**_GOPRO, "width": 64, "pool_window": 384},
        },
    ),
    "restormer": ModelSpec(
        architecture=_restormer,
        summary="U-shape of attention across channels; strong and slow",
        paper="Zamir et al., 'Restormer: Efficient Transformer for High-Resolution Image "
        "Restoration', 2022 (arXiv:2111.09881)",
        source="https://github.com/swz30/Restormer",
        licence="code and weights for academic, non-commercial use; written here from the paper",
        tiles="global-pooling",
        sizes={
            "denoising": {},
            "deraining": {"norm": "with-bias"},
            "small": _SMALL_TRANSFORMER,
        },
    ),
    "dncnn": ModelSpec(
        architecture=_dncnn,
        summary="a plain stack of convolutions that predicts the noise; the classic baseline",
        paper="Zhang et al., 'Beyond a Gaussian Denoiser', 2017 (arXiv:1608.03981)",
        source="https://github.com/cszn/DnCNN",
        licence="code and weights MIT (https://github.com/cszn/KAIR)",
        tiles="exact",
        sizes={"s": {"depth": 17}, "blind": {"depth": 20}, "merged": {"depth": 20, "norm": "none"}},
    ),
    "srresnet": ModelSpec(
        architecture=_srresnet,
        summary="a chain of residual blocks at full resolution, with the usual ablations",
        paper="Ledig et al., 'Photo-Realistic Single Image Super-Resolution Using a Generative "
        "Adversarial Network', 2017 (arXiv:1609.04802)",
        source="none by the authors",
        licence="no official code",
        tiles="exact",
        sizes={
            "plain": {"norm": "none"},
            "paper": {"input_skip": False},
            "bottleneck": {"norm": "none", "block": "bottleneck"},
            "small": {"norm": "none", "width": 32, "blocks": 8},
        },
    ),
    "res-unet": ModelSpec(
        architecture=_res_unet,
        summary="residual U-Net at half resolution; learns most per second on a CPU",
        paper="after Zhang et al., 'Plug-and-Play Image Restoration with Deep Denoiser Prior', "
        "2021 (arXiv:2008.13751)",
        source="ours",
        licence="ours",
        tiles="exact",
        channels_last=True,
        sizes={
            "fine": {"widest": 64, "decoder_blocks": (3, 1, 1)},
            "small": {},
            "large": {"width": 48, "widest": 384, "encoder_blocks": (2, 2, 2), "middle_blocks": 2},
        },
    ),
    "unet": ModelSpec(
        architecture=_unet,
        summary="the U-Net, padded, with an input skip; small ones are quick on a CPU",
        paper="after Ronneberger et al., 'U-Net', 2015 (arXiv:1505.04597)",
        source="https://lmb.informatik.uni-freiburg.de/people/ronneber/u-net",
        licence="no official PyTorch code or weights",
        tiles="exact",
        sizes={
            "small": {"width": 16, "levels": 3},
            "medium": {"width": 32, "levels": 3},
            "classic": {"width": 64, "levels": 4, "down": "pool", "norm": "batch"},
        },
    ),
    "drunet": ModelSpec(
        architecture=_drunet,
        summary="residual U-Net without offsets; knows the noise level where it is told",
        paper="Zhang et al., 'Plug-and-Play Image Restoration with Deep Denoiser Prior', 2021 "
        "(arXiv:2008.13751)",
        source="https://github.com/cszn/DPIR",
        licence="code and weights MIT (https://github.com/cszn/KAIR)",
        tiles="exact",
        channels_last=True,
        sizes={
            "small": {"width": 16, "blocks": 2, "noise_map": False},
            "plain": {"noise_map": False},
            "paper": {},
        },
    ),
    "pix2pix": ModelSpec(
        architecture=_pix2pix,
        summary="the U-Net generator of an image-to-image GAN, here trained by a pixel loss",
        paper="Isola et al., 'Image-to-Image Translation with Conditional Adversarial Networks', "
        "2017 (arXiv:1611.07004)",
        source="https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
        licence="code BSD-2; weights without stated terms",
        tiles="exact",
        channels_last=True,
        sizes={
            "unet-256": {},
            "unet-128": {"levels": 7},
            "small": {"width": 16, "levels": 5, "dropout": False},
        },
    ),
    "tone": ModelSpec(
        architecture=_tone,
        summary="one colour curve a channel for the whole page, from its thumbnail",
        paper="after Gharbi et al., 'Deep Bilateral Learning for Real-Time Image Enhancement', "
        "2017 (arXiv:1707.02880), its global branch alone",
        source="ours",
        licence="ours",
        tiles="exact",
        sees_page=True,
        sizes={"curve": {"kind": "curve"}, "affine": {"kind": "affine"}},
    ),
}


def find_model(name: str) -> ModelSpec:
    """The entry of `MODELS`, or what `tone+NAME` makes of one.

    Raises SettingsError, with the nearest name, when there is none.
    """
    if "+" in name:
        from kbdenoise.models.chain import staged_spec

        first, _, second = name.partition("+")
        if first != "tone" or second not in MODELS or second == "tone":
            raise SettingsError(
                f"there is no model called {name!r}",
                hint="the tone stage alone stands before another model, as in tone+kbnet-s",
            )
        return staged_spec(second, find_model(second))
    if name not in MODELS:
        raise SettingsError(f"there is no model called {name!r}", hint=nearest(name, MODELS))
    return MODELS[name]


def named_size(name: str, size: str) -> dict[str, Any]:
    """The hyper-parameters that a model's named size sets, such as `deck` of `kbnet-s`.

    Raises SettingsError for an unknown model or size.
    """
    sizes = find_model(name).sizes
    if size not in sizes:
        raise SettingsError(f"{name} has no size called {size!r}", hint=nearest(size, sizes))
    return dict(sizes[size])
