"""`--format onnx`: one file that ONNX Runtime and others take, its batch and sides free.

Operations are recorded by torch's tracing exporter. The newer one reasons about every free side in
symbols, which takes minutes for a KBNet where tracing takes seconds; what tracing might fix by
mistake, a size or a branch, shows in the self-check, whose tiles are of other sizes than the traced
one. The kernel-basis operator is written tap by tap (`kba_taps.per_tap`): a form of rank 4 took
1.5 times as long in ONNX Runtime.
"""

import io
import logging
import warnings
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from kbdenoise.atomic import atomic_path, writing_to
from kbdenoise.config import ExportSettings
from kbdenoise.errors import DataError, SettingsError, first_line
from kbdenoise.export.formats import Exported, require
from kbdenoise.export.probes import compared, probes
from kbdenoise.export.source import INPUT, OUTPUT, Source, versions
from kbdenoise.imaging.tiles import round_up
from kbdenoise.models.tone import Tone, ToneThen
from kbdenoise.progress import Fact, Progress

OPSET = 17
"""ONNX Runtime reads it since 1.12."""
_LIMITS = {"fp32": (2e-5, 2e-4), "fp16": (1e-3, 2e-2)}  # rms and largest error, of the range
_LARGEST_BYTES = 2**31 - 2**20  # of one ONNX file


def write(source: Source, out: Path, settings: ExportSettings, *, progress: Progress) -> Exported:
    """Write the model with its card in `metadata_props`, check its form, and what it computes.

    ONNX Runtime runs it on the CPU for that, whatever else it could use.
    """
    import onnx

    precision = source.card.precision
    size_bytes = source.info.parameters * (2 if precision == "fp16" else 4)
    if size_bytes > _LARGEST_BYTES:
        raise SettingsError(
            f"the weights are {size_bytes / 2**30:.1f} GiB, and one ONNX file holds 2 GiB",
            hint="write --precision fp16, or a smaller model",
        )
    if precision == "fp16" and isinstance(source.model, Tone):
        raise SettingsError(
            "tone is not written in fp16: half precision knows a page to a grey level only",
            hint="use --precision fp32; it is a small model",
        )
    source = source.saying(
        versions={**source.card.versions, **versions("onnx", "onnxruntime")},
        details={"opset": str(OPSET)},
    )
    progress(Fact(label="export", text="every operation is recorded, then checked"))
    model = onnx.load_model_from_string(_traced(source))
    onnx.helper.set_model_props(model, source.card.to_strings())
    model.producer_name, model.producer_version = "kbdenoise", source.card.versions["kbdenoise"]
    with atomic_path(out) as part:
        with writing_to(out):
            onnx.save_model(model, part)
        onnx.checker.check_model(part, full_check=True)
        rms, peak = _LIMITS[precision]
        checks = compared(
            _Answer(part, source.input_names),
            source,
            probes(source, sides=_sides(source), batch=2),
            rms_limit=rms,
            peak_limit=peak,
        )
        require(checks, package=out)
    operations = sum(node.op_type != "Constant" for node in model.graph.node)
    return Exported(
        path=out,
        checks=checks,
        lines=(
            f"opset {OPSET}, {operations:,} operations; any batch, sides in multiples of "
            f"{source.info.multiple} px",
            "checked by ONNX Runtime on the CPU" + _fp16_words(precision),
        ),
    )


def _fp16_words(precision: str) -> str:
    if precision == "fp32":
        return ""
    return ", which computes half precision slowly; images go in and come out in fp32"


class _Half(nn.Module):
    """The network in half precision, images in fp32 around it, and a tone stage left in fp32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.tone = model.tone if isinstance(model, ToneThen) else None
        self.model = deepcopy(model.restorer if isinstance(model, ToneThen) else model).half()

    def forward(self, image: Tensor, page: Tensor | None = None) -> Tensor:
        """Restore, rounded to half precision on the way."""
        if self.tone is not None:
            image = self.tone(image, page)
        restored: Tensor = self.model(image.half())
        return restored.float()


def _traced(source: Source) -> bytes:
    """The serialised ONNX model, of a tile of another size than those of the check."""
    model = source.model
    if source.card.precision == "fp16":
        model = _Half(model).eval()
    side = round_up(48, source.info.multiple)
    free = {0: "batch", 2: "height", 3: "width"}
    buffer = io.BytesIO()
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter is old, and says so
            torch.onnx.export(
                model,
                source.example(side, side + source.info.multiple),
                buffer,  # type: ignore[arg-type]  # its annotation forgets streams
                dynamo=False,
                opset_version=OPSET,
                input_names=list(source.input_names),
                output_names=[OUTPUT],
                dynamic_axes={
                    name: free if name in (INPUT, OUTPUT) else {0: "batch"}
                    for name in (*source.input_names, OUTPUT)
                },
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise DataError(
            f"{source.info.name} does not convert to ONNX: {first_line(error)}",
            hint="it can be written with --format torch, and run by --engine torch",
        ) from error
    finally:
        log.setLevel(level)
    return buffer.getvalue()


def _sides(source: Source) -> list[tuple[int, int]]:
    """Heights and widths of the check: small and awkward ones, then the tile's own."""
    multiple, tile = source.info.multiple, source.card.tile
    small = round_up(64, multiple)
    return [(small, small + multiple), (small + 3 * multiple, small), (tile, tile)]


class _Answer:
    """A written model, run by ONNX Runtime on the CPU."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self.names = names
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        feeds = {name: image.numpy() for name, image in zip(self.names, inputs, strict=True)}
        return torch.from_numpy(self.session.run([OUTPUT], feeds)[0])
