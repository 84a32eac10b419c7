"""Settings that belong together: presets by name, and what suits a model whatever the preset."""

from typing import Any, Literal

Preset = Literal[
    "quick",
    "standard",
    "best",
    "deck-dncnn",
    "deck-srresnet",
    "deck-unet",
    "deck-kbnet-1",
    "deck-kbnet-final",
]
Layer = dict[str, Any]
"""Settings by their flat names."""

# What the earlier work's recipes have in common: one rate for all weights, nothing averaged,
# nothing clipped, nothing guarded. Its batch sizes are not known, but for DnCNN's; memory kept
# them small. An epoch is a patch of every picture.
_DECK: Layer = {
    "batch": 8,
    "optimiser": "adam",
    "loss": "mse",
    "lr": 1e-3,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "clip": 0.0,
    "ema": 0.0,
    "warmup": "0",
    "guard": 0.0,
}
_DECK_COSINE: Layer = {
    **_DECK,
    "model": "kbnet-s",
    "epochs": 60.0,
    "schedule": "cosine",
    "lr_length": "60 epochs",
    "min_lr": 1e-4,
}
_DECK_EXPONENTIAL: Layer = {
    **_DECK,
    "epochs": 50.0,
    "schedule": "exponential",
    "lr_length": "50 epochs",
    "min_lr": 1e-4,
}

# preset -> kind of device -> settings that differ from the defaults.
# On a CPU a small network that sees many small batches beats a large one that sees few.
_BY_DEVICE: dict[str, dict[str, Layer]] = {
    "quick": {
        "cpu": {"model": "res-unet", "batch": 2, "steps": 1500, "val_every": 500},
        "gpu": {"patch": 256, "steps": 5000, "val_every": 1000},
    },
    "standard": {
        "cpu": {"model": "res-unet", "batch": 2, "steps": 20_000, "val_every": 2000},
        "gpu": {"patch": 256, "steps": 40_000, "val_every": 2000},
    },
    "best": {
        "cpu": {"model": "res-unet", "batch": 2, "steps": 100_000, "val_every": 5000},
        "gpu": {"patch": 256, "steps": 200_000, "val_every": 5000},
    },
}

# The earlier work's recipes, to measure progress against; the same on every device.
_DECKS: dict[str, Layer] = {
    # The notebook that was handed out: three epochs of random crops, no validation.
    "deck-dncnn": {
        **_DECK,
        "model": "dncnn",
        "batch": 64,
        "epochs": 3.0,
        "schedule": "constant",
        "flips": False,
        "turns": False,
    },
    # Its rate is not known: the paper's. At 1e-3, without norms, it ends in numbers of 1e15.
    "deck-srresnet": {
        **_DECK_EXPONENTIAL,
        "model": "srresnet",
        "size": "plain",
        "lr": 1e-4,
        "min_lr": 1e-5,
    },
    "deck-unet": {**_DECK_EXPONENTIAL, "model": "unet", "size": "medium"},
    "deck-kbnet-1": {**_DECK_COSINE, "size": "deck-4-levels"},
    "deck-kbnet-final": {
        **_DECK_COSINE,
        "size": "deck",
        "epochs": 100.0,
        "lr_hold_from_epoch": 59.0,
        "lr_hold": 2e-4,
    },
}

PRESETS: dict[str, dict[str, Layer]] = _BY_DEVICE | {
    name: {"cpu": layer, "gpu": layer} for name, layer in _DECKS.items()
}

# model -> settings that suit it better than the defaults, whatever the preset but the deck's.
# A small network on few pages learns print faster where it always stands upright, so it is neither
# turned nor flipped.
_TUNED: dict[str, Layer] = {
    "res-unet": {
        "optimiser": "muon",
        "lr": 2e-3,
        "beta1": 0.95,
        "ema": 0.998,
        "warmup": "3%",
        "flips": False,
        "turns": False,
    },
    # A page's tone shows in small patches as well as in large ones, and many pages teach it sooner.
    "tone": {"patch": 64, "batch": 8, "loss": "l1", "lr": 3e-3, "ema": 0.998, "warmup": "3%"},
}


def tuned(model: str, *, preset: str) -> Layer:
    """What suits a model; behind a tone stage it learns as it does alone."""
    return {} if preset in _DECKS else _TUNED.get(model.removeprefix("tone+"), {})


def default_model(model: str, *, preset: str, metric: str) -> str:
    """The model of a preset for a contest, where nobody asks for another.

    Where the score is the tone of whole pages, a stage that sees them whole goes first: a patch of
    plain colour cannot tell tinted paper from ink. The deck's recipes are left as they were.
    """
    sees_tone = metric == "mae-mean-luma" and preset not in _DECKS
    return f"tone+{model}" if sees_tone else model


# What a resumed run may be told anew; everything else would make it another run.
CHANGEABLE = (
    "steps",
    "epochs",
    "samples",
    "time_limit",
    "patience",
    "perceptual_weights",  # which may lie elsewhere by then
    "save_every",
    "log_to",
    "guard_times",
    "accumulate",
    "checkpointing",
    "device",
    "precision",
    "threads",
)
