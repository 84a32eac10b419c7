"""`--format torch`: a program of torch.export, in plain operations, for torch's own tools.

Sides are free, in multiples of the network's own and at least two of them, and so is the batch.
"""

import io
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim

from kbdenoise.atomic import atomic_path
from kbdenoise.config import ExportSettings
from kbdenoise.errors import SettingsError
from kbdenoise.export.formats import Exported, require
from kbdenoise.export.probes import compared, probes
from kbdenoise.export.source import Source
from kbdenoise.imaging.tiles import round_up
from kbdenoise.progress import Fact, Progress

_RMS_LIMIT, _PEAK_LIMIT = 2e-5, 2e-4  # of the image's range
_MOST_UNITS, _MOST_BATCH = 2**13, 2**10  # bounds, without which shapes take minutes to reason about
_CARD_FILE = "kbdenoise.txt"


def write(source: Source, out: Path, settings: ExportSettings, *, progress: Progress) -> Exported:
    """Write the program, with the card in an extra file of its archive, and check it."""
    if settings.precision == "fp16":
        raise SettingsError(
            "--format torch is written in fp32: torch chooses the precision when it runs",
            hint="leave out --precision, and run it under torch.autocast",
        )
    multiple = source.info.multiple
    progress(Fact(label="export", text="torch.export follows every operation"))
    with torch.no_grad():
        program = torch.export.export(
            source.model,
            source.example(batch=2),
            dynamic_shapes=_free_sides(source),
            strict=False,
        )
    card = "\n".join(f"{k}={v}" for k, v in source.card.to_strings().items())
    side = round_up(64, multiple)
    sides = [(side, side + multiple), (side + 3 * multiple, side)]
    archive = io.BytesIO()  # torch ends the whole process where it meets a full disk itself
    torch.export.save(program, archive, extra_files={_CARD_FILE: card})
    with atomic_path(out) as part:
        part.write_bytes(archive.getbuffer())
        module = torch.export.load(part).module()

        def answer(inputs: tuple[Tensor, ...]) -> Tensor:
            with torch.inference_mode():
                restored: Tensor = module(*inputs)
            return restored

        checks = compared(
            answer,
            source,
            probes(source, sides=sides),
            rms_limit=_RMS_LIMIT,
            peak_limit=_PEAK_LIMIT,
        )
        require(checks, package=out)
    line = f"any batch, sides in multiples of {multiple} px from {2 * multiple} px on"
    return Exported(path=out, checks=checks, lines=(line,))


def _free_sides(source: Source) -> tuple[dict[int, object], ...]:
    """Symbols for the batch and for both sides of the image; a thumbnail's sides are fixed."""
    multiple = source.info.multiple
    batch = Dim("batch", min=1, max=_MOST_BATCH)
    rows = multiple * Dim("rows", min=2, max=_MOST_UNITS)
    columns = multiple * Dim("columns", min=2, max=_MOST_UNITS)
    image: dict[int, object] = {0: batch, 2: rows, 3: columns}
    return (image, {0: batch}) if source.info.sees_page else (image,)
