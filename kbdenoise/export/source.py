"""The network of a run or of a weights file, ready to be written for another engine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kbdenoise.checksums import checksum
from kbdenoise.config import ExportSettings
from kbdenoise.errors import SettingsError
from kbdenoise.export.card import ExportCard
from kbdenoise.imaging.tiles import round_up, usual_overlap
from kbdenoise.models.network import load_network, working_bytes_per_pixel
from kbdenoise.models.spec import PAGE_SIDE, ModelInfo
from kbdenoise.runs.folder import Run, find_run

INPUT, PAGE, OUTPUT = "image", "page", "restored"
"""Names of a package's inputs and of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network in evaluation mode, in fp32 on the CPU, its scales folded, and what it is."""

    name: str
    """Of the run, or of the weights file without its suffix."""
    run: Run | None
    """None for weights that were named by themselves."""
    model: nn.Module
    info: ModelInfo
    card: ExportCard

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of its inputs, in their order."""
        return (INPUT, PAGE) if self.info.sees_page else (INPUT,)

    def example(
        self, height: int | None = None, width: int | None = None, *, batch: int = 1
    ) -> tuple[Tensor, ...]:
        """Inputs of a tile, by default of the card's side: random numbers in [0, 1], seeded."""
        height = height or self.card.tile
        generator = torch.Generator().manual_seed(0)
        shapes = [(height, width or height)]
        shapes += [(PAGE_SIDE, PAGE_SIDE)] * self.info.sees_page
        return tuple(
            torch.rand(batch, self.info.channels, *sides, generator=generator) for sides in shapes
        )

    def saying(self, **changes: Any) -> "Source":
        """The same with a card that says something else."""
        return replace(self, card=replace(self.card, **changes))


def load_source(
    name: str, *, runs: Path, settings: ExportSettings, hyper: Mapping[str, Any] | None = None
) -> Source:
    """The best weights of a run, or those of a file, as `settings` want them.

    `hyper` are hyper-parameters that a weights file does not tell. Raises SettingsError where
    nothing is called so, and DataError for a broken file or a run without a network.
    """
    path, run = Path(name), None
    if not path.is_file():
        run = find_run(name, runs)
        if run.filter_file.is_file():
            raise SettingsError(
                f"{run.name} is a classical filter, which has no network to export",
                hint="export a run of a network; `kbdenoise runs list` shows them",
            )
        path = run.weights()
    return source_of(path, run=run, settings=settings, hyper=hyper)


def source_of(
    weights: Path,
    *,
    settings: ExportSettings,
    run: Run | None = None,
    hyper: Mapping[str, Any] | None = None,
) -> Source:
    """`load_source` for a weights file, which may be that of a run."""
    model, info, card = load_network(weights, hyper)
    tile = round_up(settings.tile, info.multiple)
    return Source(
        name=run.name if run else weights.stem,
        run=run,
        model=model,
        info=info,
        card=ExportCard(
            model=info.name,
            channels=info.channels,
            hyperparameters=card.hyperparameters,
            parameters=info.parameters,
            format=settings.format,
            precision="fp32" if settings.precision == "auto" else settings.precision,
            tile=tile,
            overlap=usual_overlap(info.receptive_field, tile=tile, multiple=info.multiple),
            multiple=info.multiple,
            radius=info.receptive_field,
            sees_page=info.sees_page,
            bytes_per_pixel=working_bytes_per_pixel(model, info),
            weights_sha256=checksum(weights),
            versions=versions("kbdenoise", "torch"),
        ),
    )


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages by their names; `unknown` for one that is not."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
