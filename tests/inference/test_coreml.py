"""Core ML's restorer: one tile at a time, what it falls back to, and what a child may find.

Core ML itself is on Macs alone; packages are computed by kbdenoise's interpreter here.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from kbdenoise.config import EngineSettings, ExportSettings, PredictConfig, UnitsName
from kbdenoise.devices import choose_device
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export.card import ExportCard
from kbdenoise.export.coreml.compiled import compiled
from kbdenoise.export.coreml.mil import evaluate
from kbdenoise.export.coreml.package import write
from kbdenoise.export.coreml.program import read_program
from kbdenoise.export.source import INPUT, OUTPUT, PAGE
from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.magazine.house import draw_house
from kbdenoise.imaging.magazine.pages import draw_page
from kbdenoise.imaging.scanner import draw_scanner, print_and_scan
from kbdenoise.imaging.tiles import TilePlan
from kbdenoise.inference import apple
from kbdenoise.inference.apple import CoreML, failure
from kbdenoise.inference.coreml import (
    CoreMLRestorer,
    FirstCallError,
    Planes,
    Runner,
    open_coreml,
)
from kbdenoise.inference.engines import TorchRestorer
from kbdenoise.inference.loading import _instead, load_file
from kbdenoise.inference.restore import restore_image
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.progress import Event, Note, silent
from tests.export.coreml.conftest import ToySource
from tests.export.coreml.conftest import library as library
from tests.export.coreml.conftest import randomised as randomised
from tests.export.coreml.conftest import toy as toy
from tests.export.coreml.conftest import toy_source as toy_source

TILE = 256


def interpreted(package: Path) -> CoreMLRestorer:
    """A package's restorer without Core ML."""
    program = read_program(package)

    def run(feeds: Mapping[str, Planes]) -> Planes:
        images = {name: torch.from_numpy(image) for name, image in feeds.items()}
        return evaluate(program, images)[OUTPUT].numpy()

    return CoreMLRestorer(ExportCard.from_strings(program.metadata, where=package), run)


def scanned_page() -> FloatImage:
    """A picture of the demo contest: 512x512 px of a page, printed and scanned."""
    rng = np.random.default_rng(4)
    clean = draw_page(draw_house("BitGarden", rng), number=12, rng=rng)
    scan = print_and_scan(clean, back=None, scanner=draw_scanner(rng), rng=rng)
    return np.round(255 * scan[300:812, 100:612]).astype(np.float32) / np.float32(255)


def test_a_page_by_a_package_in_half_precision_is_the_page_by_torch(
    toy_source: ToySource, tmp_path: Path
) -> None:
    block = {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (0,), "middle_blocks": 0}
    source = toy_source("tone+kbnet-s", tile=TILE, last=0.01, **block, tone_width=4)
    package = tmp_path / "tone.mlpackage"
    write(source, package, ExportSettings(format="coreml"), progress=silent)
    restorer = interpreted(package)
    page, plan = scanned_page(), TilePlan(tile=TILE, overlap=64, margin=24)

    found = restore_image(page, restorer, plan=plan)

    peer = TorchRestorer(
        source.model, info=source.info, device=choose_device("cpu", precision="fp32")
    )
    expected = restore_image(page, peer, plan=plan)
    assert np.abs(expected - page).max() > 0.05
    assert np.abs(found - expected).max() <= 1 / 255
    assert abs(luma(found).mean() - luma(expected).mean()) * 255 <= 0.05
    assert restorer.fixed_tile == TILE
    assert restorer.sees_page


CARD = ExportCard(
    model="dncnn",
    channels=3,
    hyperparameters={},
    parameters=1,
    format="coreml",
    precision="fp16",
    tile=64,
    overlap=16,
    multiple=1,
    radius=3,
    sees_page=False,
    bytes_per_pixel=100.0,
    weights_sha256="",
    versions={},
)


def test_tiles_of_a_batch_are_computed_one_after_the_other() -> None:
    seen: list[tuple[int, ...]] = []

    def run(feeds: Mapping[str, Planes]) -> Planes:
        seen.append(feeds[INPUT].shape)
        assert feeds[PAGE].shape == (1, 3, PAGE_SIDE, PAGE_SIDE)
        return 2 * feeds[INPUT] + feeds[PAGE].mean()

    tiles = np.random.default_rng(0).random((2, 8, 6, 3), dtype=np.float32)
    pages = np.ones((2, PAGE_SIDE, PAGE_SIDE, 3), np.float32)

    found = CoreMLRestorer(CARD, run)(tiles, pages)

    assert seen == [(1, 3, 8, 6)] * 2
    np.testing.assert_array_equal(found, 2 * tiles + 1)


@dataclass
class Mac:
    """A Mac whose answers were written down: what is wrong with each of its units."""

    faults: Mapping[str, str] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    def compiled(self, package: Path) -> Path:
        return package.with_suffix(".mlmodelc")

    def fault(self, compiled: Path, units: str, card: ExportCard, *, limit_s: float) -> str:
        self.tried.append(units)
        return self.faults.get(units, "")

    def runner(self, compiled: Path, units: str) -> Runner:
        self.used.append(units)
        return lambda feeds: feeds[INPUT]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package of which nothing but its card is looked at."""

    class Card:
        metadata = CARD.to_strings()

    monkeypatch.setattr("kbdenoise.inference.coreml.read_program", lambda path: Card)
    return tmp_path / "x.mlpackage"


@pytest.mark.parametrize(
    ("asked", "units", "kind"),
    [
        ("auto", "CPU_AND_NE", "mps"),
        ("ane", "CPU_AND_NE", "mps"),
        ("gpu", "CPU_AND_GPU", "mps"),
        ("cpu", "CPU_ONLY", "cpu"),
        ("all", "ALL", "mps"),
    ],
)
def test_the_units_that_were_asked_for_are_tried_and_used(
    package: Path, asked: UnitsName, units: str, kind: str
) -> None:
    mac = Mac()

    restorer, device = open_coreml(package, system=mac, units=asked)

    assert mac.tried == mac.used == [units]
    assert (device.kind, restorer.fixed_tile) == (kind, 64)


def test_auto_is_the_neural_engine_in_the_packages_precision(package: Path) -> None:
    device = open_coreml(package, system=Mac())[1]

    assert device.text == ("mps  Core ML on the Neural Engine; float16: as the package was written")


@pytest.fixture
def dead_engine(monkeypatch: pytest.MonkeyPatch) -> Mac:
    """A Mac whose Neural Engine ends the process that tries it."""
    mac = Mac({"CPU_AND_NE": "ended the process that tried it (signal 9)"})
    monkeypatch.setattr("kbdenoise.export.coreml.compiled.require_a_mac", lambda: None)
    monkeypatch.setattr("kbdenoise.inference.apple.CoreML", lambda: mac)
    return mac


def test_a_neural_engine_that_fails_gives_way_to_the_cpu_for_a_package(
    package: Path, dead_engine: Mac
) -> None:
    package.mkdir()
    told: list[Event] = []

    loaded = load_file(package, progress=told.append)

    assert dead_engine.tried == ["CPU_AND_NE", "CPU_ONLY"]
    assert dead_engine.used == ["CPU_ONLY"]
    assert (loaded.weights, loaded.config.engine.compute_units) == (package, "cpu")
    assert loaded.restoration.restorer.fixed_tile == 64
    (note,) = (event.text for event in told if isinstance(event, Note))
    assert "the Neural Engine cannot compute" in note
    assert "the first call ended the process that tried it (signal 9); going on with cpu" in note


def test_a_neural_engine_that_fails_gives_way_to_torch_for_a_run(
    package: Path, dead_engine: Mac, tmp_path: Path
) -> None:
    config = PredictConfig(engine=EngineSettings(engine="coreml", compute_units="ane"))
    weights = tmp_path / "best.safetensors"
    with pytest.raises(FirstCallError) as caught:
        open_coreml(package, system=dead_engine)

    instead, file = _instead(caught.value, package, config, weights=weights)

    assert instead.engine == EngineSettings(engine="torch")
    assert file == weights


def test_where_the_cpu_fails_too_the_reason_is_told(package: Path, dead_engine: Mac) -> None:
    dead_engine.faults = {**dead_engine.faults, "CPU_ONLY": "failed: no memory"}
    package.mkdir()

    with pytest.raises(
        DataError, match=r"the CPU cannot compute .*: the first call failed: no mem"
    ):
        load_file(package)
    dead_engine.tried.clear()
    with pytest.raises(DataError, match=r"the CPU cannot compute"):
        load_file(package, compute_units="cpu")
    assert dead_engine.tried == ["CPU_ONLY"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", ""),
        ("import os; os.kill(os.getpid(), 9)", "ended the process that tried it (signal 9)"),
        ("import sys; print('x', file=sys.stderr); sys.exit('no ANE')", "failed: no ANE"),
        ("import sys; sys.exit(3)", "failed: no message"),
        ("import time; time.sleep(60)", "did not answer within 0.5 s"),
    ],
)
def test_what_a_child_may_find(code: str, expected: str) -> None:
    limit_s = 0.5 if "sleep" in code else 60

    assert failure([sys.executable, "-S", "-E", "-c", code], limit_s=limit_s) == expected


def test_the_child_tries_tiles_of_the_packages_sizes_and_wants_finite_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[int, ...]] = []

    def run(feeds: Mapping[str, Planes]) -> Planes:
        seen.extend(image.shape for image in feeds.values())
        return 1 / feeds[INPUT] if broken else feeds[INPUT]

    class Units(Mac):
        def runner(self, compiled: Path, units: str) -> Runner:
            return run

    monkeypatch.setattr(apple, "CoreML", Units)
    monkeypatch.setattr("sys.argv", ["", str(tmp_path), "CPU_AND_NE", "3x8", "3x4"])
    broken = False
    apple.main()
    assert seen == [(1, 3, 8, 8), (1, 3, 4, 4)] * 3
    broken = True
    with (
        pytest.raises(SystemExit, match="its answer for a black tile is not finite"),
        np.errstate(divide="ignore"),
    ):
        apple.main()


def test_a_child_that_cannot_be_started_is_no_crash(tmp_path: Path) -> None:
    assert failure([str(tmp_path / "none")], limit_s=1).startswith("could not be tried: ")


def test_compiled_packages_are_kept_until_the_package_changes(tmp_path: Path) -> None:
    package, cache = tmp_path / "x.mlpackage", tmp_path / "cache"
    package.mkdir()
    (package / "weight.bin").write_bytes(b"first")
    calls: list[Path] = []

    def compile(source: Path, place: Path) -> None:
        calls.append(source)
        place.mkdir()
        (place / "model.mil").write_bytes((source / "weight.bin").read_bytes())

    first = compiled(package, compile=compile, cache=cache)
    again = compiled(package, compile=compile, cache=cache)
    (package / "weight.bin").write_bytes(b"other")
    other = compiled(package, compile=compile, cache=cache)

    assert first == again != other
    assert calls == [package, package]
    assert (other / "model.mil").read_bytes() == b"other"


def test_what_core_ml_cannot_compile_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    package, cache = tmp_path / "x.mlpackage", tmp_path / "cache"
    package.mkdir()

    def refuse(source: Path, place: Path) -> None:
        place.mkdir()
        raise RuntimeError("Error compiling model: unknown opset\nmore")

    with pytest.raises(DataError, match=r"Core ML cannot compile .*: Error compiling model"):
        compiled(package, compile=refuse, cache=cache)
    assert list((cache / "coreml").iterdir()) == []


@pytest.mark.skipif(sys.platform == "darwin", reason="what other systems are told")
def test_off_a_mac_core_ml_is_refused_in_a_sentence_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "x.mlpackage").mkdir()

    for refused in (CoreML, lambda: load_file(tmp_path / "x.mlpackage")):
        with pytest.raises(SettingsError, match="Core ML runs packages on macOS alone") as caught:
            refused()
        assert caught.value.exit_code == 2


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML is on macOS alone")
def test_core_ml_computes_a_package_as_the_interpreter_does(
    toy_source: ToySource, tmp_path: Path
) -> None:
    source = toy_source("dncnn", tile=64)
    package = tmp_path / "dncnn.mlpackage"
    write(source, package, ExportSettings(format="coreml"), progress=silent)
    tile = scanned_page()[None, :64, :64]

    restorer, _ = open_coreml(package, system=CoreML())

    found = restorer(tile)
    assert np.abs(found - interpreted(package)(tile)).max() < 0.02
