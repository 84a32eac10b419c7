"""What the named sizes cost, known without importing torch: 256x256 px, 3 channels or 1.

Written by `python -m benchmarks.costs`; a test holds every figure against the models themselves.
"""

from typing import NamedTuple


class KnownCosts(NamedTuple):
    """Learned numbers, and multiply-accumulates of one image of 256x256 px by kind."""

    parameters: int
    conv_macs: int
    kernel_basis_macs: int
    attention_macs: int


KNOWN_COSTS: dict[str, dict[str, KnownCosts]] = {
    "kbnet-s": {
        "deck": KnownCosts(2_566_419, 4_103_183_360, 12_152_995_840, 0),
        "small": KnownCosts(310_267, 569_776_768, 2_318_663_680, 0),
        "deck-lightweight": KnownCosts(2_449_939, 3_196_689_408, 12_152_995_840, 0),
        "deck-4-levels": KnownCosts(6_060_179, 3_911_046_144, 10_234_101_760, 0),
        "deck-4-levels-lightweight": KnownCosts(5_856_339, 3_147_682_816, 10_234_101_760, 0),
        "sidd": KnownCosts(128_403_395, 57_809_518_592, 48_611_983_360, 0),
        "gaussian-colour": KnownCosts(141_966_659, 68_683_251_712, 48_611_983_360, 0),
        "gaussian-gray": KnownCosts(141_964_353, 68_532_256_768, 48_611_983_360, 0),
    },
    "kbnet-l": {
        "full": KnownCosts(29_568_100, 107_693_575_680, 88_615_157_760, 13_891_534_848),
        "small": KnownCosts(2_301_243, 5_198_448_000, 8_369_209_344, 419_430_400),
    },
    "nafnet": {
        "deck": KnownCosts(3_097_107, 2_691_027_968, 0, 0),
        "sidd-32": KnownCosts(29_159_715, 16_045_035_520, 0, 0),
        "sidd-64": KnownCosts(115_982_915, 63_236_423_680, 0, 0),
        "gopro-32": KnownCosts(17_111_907, 15_956_027_392, 0, 0),
        "gopro-64": KnownCosts(67_888_835, 63_054_979_072, 0, 0),
        "gopro-32-local": KnownCosts(17_111_907, 15_956_027_392, 0, 0),
        "gopro-64-local": KnownCosts(67_888_835, 63_054_979_072, 0, 0),
    },
    "restormer": {
        "denoising": KnownCosts(26_111_668, 140_990_496_768, 0, 13_891_534_848),
        "deraining": KnownCosts(26_126_644, 140_990_496_768, 0, 13_891_534_848),
        "small": KnownCosts(1_554_875, 6_165_987_328, 0, 419_430_400),
    },
    "dncnn": {
        "s": KnownCosts(559_363, 36_465_278_976, 0, 0),
        "blind": KnownCosts(670_531, 43_713_036_288, 0, 0),
        "merged": KnownCosts(668_227, 43_713_036_288, 0, 0),
    },
    "srresnet": {
        "plain": KnownCosts(1_249_812, 81_763_762_176, 0, 0),
        "paper": KnownCosts(1_254_036, 81_763_762_176, 0, 0),
        "bottleneck": KnownCosts(792_100, 51_698_991_104, 0, 0),
        "small": KnownCosts(172_812, 11_286_872_064, 0, 0),
    },
    "res-unet": {
        "fine": KnownCosts(418_460, 1_345_323_008, 0, 0),
        "small": KnownCosts(891_756, 1_450_180_608, 0, 0),
        "large": KnownCosts(8_751_852, 8_776_581_120, 0, 0),
    },
    "unet": {
        "small": KnownCosts(622_067, 2_648_702_976, 0, 0),
        "medium": KnownCosts(2_485_219, 10_531_897_344, 0, 0),
        "classic": KnownCosts(31_037_763, 48_175_775_744, 0, 0),
    },
    "drunet": {
        "small": KnownCosts(1_063_776, 4_485_808_128, 0, 0),
        "plain": KnownCosts(32_640_384, 138_739_187_712, 0, 0),
        "paper": KnownCosts(32_640_960, 138_776_936_448, 0, 0),
    },
    "pix2pix": {
        "unet-256": KnownCosts(54_413_955, 6_048_186_368, 0, 0),
        "unet-128": KnownCosts(41_828_995, 6_023_020_544, 0, 0),
        "small": KnownCosts(1_043_619, 373_293_056, 0, 0),
    },
    "tone": {
        "curve": KnownCosts(71_251, 3_402_112, 0, 0),
        "affine": KnownCosts(68_326, 3_399_232, 0, 0),
    },
}
