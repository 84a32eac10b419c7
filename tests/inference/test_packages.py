"""Pictures restored by other engines: the same tiles, files and checks as by torch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from kbdenoise.checksums import checksum
from kbdenoise.config import TileSettings
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.demo import make_demo_contest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export.package import export_model
from kbdenoise.imaging.files import FloatImage, read_picture
from kbdenoise.imaging.luma import mean_luma_of_pixels
from kbdenoise.inference import onnx_engine
from kbdenoise.inference.engines import PACES
from kbdenoise.inference.evaluate import evaluate
from kbdenoise.inference.loading import load_file
from kbdenoise.inference.plans import plan_tiles
from kbdenoise.inference.predict import LEDGER_FILE, predict
from kbdenoise.inference.restore import restore_image
from kbdenoise.models.build import build_model
from kbdenoise.models.weights import ModelCard, save_weights
from kbdenoise.runs.folder import Run, find_run
from kbdenoise.training.train import train

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 2,
    "steps": 3,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
}


def weights_file(folder: Path, name: str, **options: Any) -> Path:
    torch.manual_seed(3)
    model = build_model(name, channels=3, **options)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape) * (p[0].numel() if p.ndim == 4 else 4) ** -0.5)
    path = folder / f"{name}.safetensors"
    save_weights(path, model, card=ModelCard(model=name, channels=3, hyperparameters=options))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned page of the demo contest."""
    folder = tmp_path_factory.mktemp("made") / "demo"
    make_demo_contest(folder, train_pages=1, test_pages=1, workers=1)
    return min((folder / "test").rglob("*.tif"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tone+unet", {"width": 4, "levels": 2, "tone_width": 4}),
        (
            "nafnet",
            {"width": 4, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)},
        ),
    ],
)
def test_a_page_restored_in_tiles_is_the_same_by_onnx_runtime_and_by_torch(
    name: str, options: dict[str, Any], page: Path, tmp_path: Path
) -> None:
    weights = weights_file(tmp_path, name, **options)
    package = export_model(str(weights), format="onnx", tile=64).path
    tiles = {"tile": 160, "overlap": 48}

    by_torch = predict(
        weights=weights, pictures=[page], out=tmp_path / "torch", precision="fp32", **tiles
    )
    by_onnx = predict(str(package), [page], out=tmp_path / "onnx", **tiles)

    expected = read_picture(tmp_path / "torch" / page.name).pixels
    found = read_picture(tmp_path / "onnx" / page.name).pixels
    given = read_picture(page).pixels
    assert by_onnx.tiles == by_torch.tiles != "whole"
    assert np.abs(expected.astype(float) - given).mean() > 1
    assert np.abs(found.astype(float) - expected).max() <= 1
    assert abs(mean_luma_of_pixels(found) - mean_luma_of_pixels(expected)) < 0.05


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """Where the run that is trained and exported once for all tests is kept."""
    return []


@pytest.fixture
def run(
    contest: LocalContest,
    kept: list[Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A short run with its package, the same in all tests."""
    if not kept:
        kept.append(tmp_path_factory.mktemp("kept") / "runs")
        train(contest.folder, runs=kept[0], **TINY)
        export_model("last", format="onnx", tile=64, runs=kept[0])
    shutil.copytree(kept[0], tmp_path / "runs")
    found = find_run("last", tmp_path / "runs")
    found.write_record(replace(found.read_record(), contest_folder=str(contest.folder)))
    return found


def test_a_runs_package_lies_in_the_run_and_is_found_by_its_engine(
    run: Run, contest: LocalContest, tmp_path: Path
) -> None:
    package = run.export_folder / f"{run.name}.onnx"

    result = predict(run.name, engine="onnx", runs=run.path.parent, out=tmp_path / "out")

    head = json.loads((tmp_path / "out" / LEDGER_FILE).read_text().splitlines()[0])
    assert result.weights == package
    assert result.pictures == 4
    assert head["work"]["engine"] == "onnx"
    assert head["work"]["weights_sha256"] == checksum(package)


def test_what_torch_restored_is_not_taken_for_the_work_of_another_engine(
    run: Run, contest: LocalContest, tmp_path: Path
) -> None:
    predict(run.name, runs=run.path.parent, out=tmp_path / "out")

    with pytest.raises(SettingsError, match="is there already"):
        predict(run.name, engine="onnx", runs=run.path.parent, out=tmp_path / "out")


def test_engines_score_a_run_alike(run: Run, contest: LocalContest, tmp_path: Path) -> None:
    scores = [
        evaluate(run.name, runs=run.path.parent, out=tmp_path, **settings).score
        for settings in ({"precision": "fp32"}, {"engine": "onnx"})
    ]

    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_a_run_without_a_package_names_the_command_that_writes_it(run: Run) -> None:
    shutil.rmtree(run.export_folder)

    with pytest.raises(DataError, match="has no package for this engine yet") as caught:
        predict(run.name, engine="onnx", runs=run.path.parent)

    assert caught.value.hint == f"kbdenoise export {run.name} --format onnx"


def test_a_package_of_older_weights_is_refused_with_the_cure(run: Run) -> None:
    run.best.write_bytes(run.best.read_bytes() + b" ")

    with pytest.raises(DataError, match="was made of other weights") as caught:
        predict(run.name, engine="onnx", runs=run.path.parent)

    assert caught.value.hint == f"kbdenoise export {run.name} --format onnx --force"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cpu"}, "--device cpu is for --engine torch"),
        ({"precision": "fp32"}, "--precision fp32 is for --engine torch"),
        ({"hyper": "levels=1"}, "--hyper levels=1 is for --engine torch"),
        ({"compute_units": "ane"}, "--compute-units ane is not served"),
        ({"engine": "torch"}, "--engine torch does not take"),
    ],
)
def test_what_a_package_cannot_follow_is_refused(
    settings: dict[str, str], message: str, run: Run
) -> None:
    with pytest.raises(SettingsError, match=message):
        predict(str(run.export_folder / f"{run.name}.onnx"), [Path("x.png")], **settings)


def test_compute_units_are_no_matter_of_torch(run: Run) -> None:
    with pytest.raises(SettingsError, match="packages of other engines"):
        predict(run.name, compute_units="gpu", runs=run.path.parent)


def test_a_program_of_torch_is_not_run_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"")

    with pytest.raises(SettingsError, match="reading it may run code from the file"):
        predict(str(tmp_path / "model.pt2"), [tmp_path])


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07"])
def test_a_file_that_is_no_package_is_an_error_in_words(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(DataError, match=r"model\.onnx"):
        predict(str(tmp_path / "model.onnx"), [tmp_path])


def test_the_provider_and_the_threads_are_told(run: Run) -> None:
    package = run.export_folder / f"{run.name}.onnx"

    loaded = load_file(package, threads=1, compute_units="cpu")

    assert loaded.device.text == (
        f"cpu  ONNX Runtime {onnxruntime.__version__} by the CPU, as asked, 1 threads; float32: "
        "as the package was written"
    )


@pytest.mark.parametrize(
    ("available", "units", "wanted"),
    [
        (["CPUExecutionProvider"], "auto", "CPUExecutionProvider"),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            "auto",
            "CUDAExecutionProvider",
        ),
        (["CoreMLExecutionProvider", "CPUExecutionProvider"], "ane", "CoreMLExecutionProvider"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "cpu", "CPUExecutionProvider"),
    ],
)
def test_the_first_provider_that_serves_the_units_is_wanted(
    available: list[str], units: str, wanted: str
) -> None:
    assert onnx_engine._wanted(available, units)[0] == wanted


def test_core_ml_is_not_given_everything_unless_asked() -> None:
    _, options = onnx_engine._wanted(["CoreMLExecutionProvider"], "auto")

    assert options["MLComputeUnits"] == "CPUAndNeuralEngine"


def test_a_session_without_memory_says_so_as_torch_does(run: Run) -> None:
    restorer, _ = onnx_engine.open_onnx(run.export_folder / f"{run.name}.onnx")
    restorer.session = Poor()

    with pytest.raises(MemoryError):
        restorer(np.zeros((1, 8, 8, 3), dtype=np.float32))


def test_a_session_that_fails_is_told_once(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    restorer, _ = onnx_engine.open_onnx(run.export_folder / f"{run.name}.onnx")

    with pytest.raises(DataError, match="ONNX Runtime failed"):
        restorer(np.zeros((1, 7, 7, 3), dtype=np.float32))  # no multiple of the network's two

    assert capfd.readouterr().err == ""


class Poor:
    """Answers as ONNX Runtime does where it gets no memory."""

    def run(self, *_: object) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 9")


class Fixed:
    """Takes tiles of one side only, one at a time."""

    channels, multiple, radius, sees_page = 3, 8, 4, False
    bytes_per_pixel, pace, fixed_tile = 1000.0, PACES["cpu"], 64

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        assert noisy.shape == (1, 64, 64, 3)
        return (1 - noisy).astype(np.float32)


@pytest.mark.parametrize("sides", [(64, 64), (5, 3), (1, 200), (150, 64), (131, 97)])
@pytest.mark.parametrize("tta", [False, True])
def test_an_engine_of_one_tile_gets_that_tile_whatever_the_picture(
    sides: tuple[int, int], tta: bool
) -> None:
    image = np.random.default_rng(0).random((*sides, 3), dtype=np.float32)
    plan = plan_tiles(
        Fixed(), height=sides[0], width=sides[1], settings=TileSettings(), memory_bytes=1
    )

    restored = restore_image(image, Fixed(), plan=plan, tta=tta)

    np.testing.assert_allclose(restored, 1 - image, atol=1e-6)


def test_another_tile_is_not_asked_of_such_an_engine() -> None:
    with pytest.raises(SettingsError, match="takes 64 px only"):
        plan_tiles(
            Fixed(), height=99, width=99, settings=TileSettings(tile=128), memory_bytes=2**30
        )
