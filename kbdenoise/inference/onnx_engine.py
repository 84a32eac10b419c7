"""ONNX Runtime behind the Restorer protocol, with whatever execution provider it finds.

Providers are tried in this order: CUDA, ROCm, Core ML, DirectML, the CPU. TensorRT is left out
although it is often the fastest in the end: it compiles for minutes for each new size of a tile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbdenoise.devices import DeviceChoice, DeviceKind, usable_cores
from kbdenoise.errors import DataError, SettingsError, first_line
from kbdenoise.export.card import ExportCard
from kbdenoise.export.formats import FORMATS
from kbdenoise.export.source import INPUT, OUTPUT, PAGE
from kbdenoise.imaging.files import FloatImage
from kbdenoise.inference.engines import PACES

if TYPE_CHECKING:
    import onnxruntime

_CPU = "CPUExecutionProvider"
_NO_MEMORY = ("bad_alloc", "Failed to allocate memory", "out of memory", "BFCArena")
_HELD = 1.5  # times the card's estimate: KBNet-S took 1.34 times it, NAFNet and DnCNN half of it
_FATAL_ONLY = 4  # of ONNX Runtime's log: its errors come as exceptions, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One line of the table of execution providers."""

    words: str
    units: tuple[str, ...]
    """The `--compute-units` that it serves."""
    kind: DeviceKind
    """Whose pace and memory count."""
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What it is told for some of the units."""


PROVIDERS: Mapping[str, Provider] = {
    "CUDAExecutionProvider": Provider(words="CUDA", units=("gpu", "all"), kind="cuda"),
    "ROCMExecutionProvider": Provider(words="ROCm", units=("gpu", "all"), kind="cuda"),
    "CoreMLExecutionProvider": Provider(
        words="Core ML",
        units=("ane", "gpu", "all"),
        kind="mps",
        options={
            "ane": {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndNeuralEngine"},
            "gpu": {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"},
            "all": {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
        },
    ),
    "DmlExecutionProvider": Provider(words="DirectML", units=("gpu", "all"), kind="cuda"),
    _CPU: Provider(words="the CPU", units=("cpu", "all"), kind="cpu"),
}
"""In the order in which they are chosen. Only the CPU's has been run by us."""


class OnnxRestorer:
    """A package in a session of ONNX Runtime."""

    fixed_tile = None

    def __init__(
        self, session: "onnxruntime.InferenceSession", card: ExportCard, *, kind: DeviceKind
    ) -> None:
        self.session = session
        self.channels = card.channels
        self.multiple = card.multiple
        self.radius = card.radius
        self.bytes_per_pixel = _HELD * card.bytes_per_pixel
        self.sees_page = card.sees_page
        self.pace = PACES[kind]

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        """Restore float32 [B, H, W, C] in [0, 1]; the result is not clipped.

        Raises MemoryError where the session runs out of it.
        """
        feeds = {INPUT: _planes(noisy)}
        if self.sees_page:
            assert page is not None
            feeds[PAGE] = _planes(page)
        try:
            restored = self.session.run([OUTPUT], feeds)[0]  # [B, C, H, W]
        except Exception as error:
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise DataError(
                f"ONNX Runtime failed: {first_line(error)}",
                hint="try --compute-units cpu, or --engine torch",
            ) from error
        answer: FloatImage = np.ascontiguousarray(restored.transpose(0, 2, 3, 1))
        return answer


def open_onnx(
    package: Path, *, units: str = "auto", threads: int = 0
) -> tuple[OnnxRestorer, DeviceChoice]:
    """A restorer from a package, and where it runs and why.

    `units` are a `--compute-units`; `threads` > 0 limits the threads of the CPU. Raises
    SettingsError for units that the installed ONNX Runtime does not serve, and DataError for a
    file that is no package of kbdenoise.
    """
    runtime = _runtime()
    wanted, options = _wanted(runtime.get_available_providers(), units)
    providers: list[Any] = [(wanted, dict(options))]
    providers += [_CPU] if wanted != _CPU else []
    session = _opened(package, providers, threads=threads)
    card = _card_in(session, package)
    used = session.get_providers()[0]
    provider = PROVIDERS[used]
    reason = f"ONNX Runtime {runtime.__version__} by {provider.words}"
    if used != wanted:
        reason += f", as {PROVIDERS[wanted].words} could not be started"
    elif units != "auto":
        reason += ", as asked"
    elif used == _CPU:
        reason += ", the only one that is installed"
    if used == _CPU:
        reason += f", {threads or usable_cores()} threads"
    device = DeviceChoice(
        kind=provider.kind,
        reason=reason,
        arithmetic="float16" if card.precision == "fp16" else "float32",
        precision_reason="as the package was written",
    )
    return OnnxRestorer(session, card, kind=provider.kind), device


def read_onnx_card(package: Path) -> ExportCard:
    """What a package says of itself. Raises DataError as `open_onnx` does."""
    return _card_in(_opened(package, [_CPU], threads=1, light=True), package)


def provider_words() -> str:
    """For `doctor`: the version of ONNX Runtime and its providers, the first chosen first."""
    runtime = _runtime()
    available = runtime.get_available_providers()
    words = [p.words for name, p in PROVIDERS.items() if name in available]
    return f"{runtime.__version__}, by {', else '.join(words)}"


def _wanted(available: list[str], units: str) -> tuple[str, Mapping[str, str]]:
    """The first provider of the table that is installed and serves the units, and its options.

    Without a word Core ML gets the Neural Engine and the CPU, as `coreml.open_coreml` does.
    """
    for name, provider in PROVIDERS.items():
        if name in available and (units == "auto" or units in provider.units):
            return name, provider.options.get("ane" if units == "auto" else units, {})
    there = ", ".join(p.words for name, p in PROVIDERS.items() if name in available)
    raise SettingsError(
        f"--compute-units {units} is not served by the installed ONNX Runtime, which has {there}",
        hint="use --compute-units auto, or install the onnxruntime of this machine's GPU",
    )


def _opened(
    package: Path, providers: list[Any], *, threads: int, light: bool = False
) -> "onnxruntime.InferenceSession":
    """A session; a `light` one is for reading the metadata, and optimises nothing."""
    runtime = _runtime()
    if not package.is_file():
        raise DataError(f"{package} does not exist", hint="write it: kbdenoise export RUN")
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads or usable_cores()
    if light:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return runtime.InferenceSession(package, options, providers=providers)
    except Exception as error:  # of a dozen classes that have nothing in common
        raise DataError(
            f"ONNX Runtime cannot read {package}: {first_line(error)}",
            hint="write it anew: kbdenoise export RUN --format onnx --force",
        ) from error


def _card_in(session: "onnxruntime.InferenceSession", package: Path) -> ExportCard:
    strings = session.get_modelmeta().custom_metadata_map
    return ExportCard.from_strings(strings, where=package)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            "--engine onnx needs onnxruntime, which is not installed",
            hint=FORMATS["onnx"].install,
        ) from error
    return onnxruntime


def _planes(images: FloatImage) -> FloatImage:
    """[B, H, W, C] -> [B, C, H, W]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
