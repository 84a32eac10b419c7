"""Names decide which pictures are noisy and which clean; what they do not decide is asked."""

from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests.contest import Contest
from kbdenoise.contests.layout import Layout, detect_layout
from kbdenoise.contests.sources import match_pairs
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import encode

GRAY = encode(np.full((2, 3, 1), 100, np.uint8), suffix=".png")
GRAY_AS_RGB = encode(np.full((2, 3, 3), 100, np.uint8), suffix=".png")
COLOUR = encode(np.array([[[10, 20, 30]]], np.uint8), suffix=".png")


def lay_out(root: Path, *names: str, content: bytes = GRAY) -> Path:
    """Write pictures; `train/{1,2}.png` stands for two."""
    for name in names:
        before, _, rest = name.partition("{")
        inside, _, after = rest.partition("}")
        for middle in inside.split(","):
            path = root / f"{before}{middle}{after}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("noisy", "clean"),
    [
        ("noisy", "clean"),
        ("scan", "clean"),
        ("train", "train_cleaned"),
        ("input", "target"),
        ("lq", "gt"),
        ("LQ", "GT"),
        ("low", "high"),
        ("degraded", "reference"),
        ("degraded", "originals"),
        ("blur", "sharp"),
        ("hazy", "GT"),
        ("trainNoisy", "trainClean"),
        ("images_noisy", "images"),
        ("images", "images-clean"),
        ("train/noisy", "train/clean"),
        ("noisy/train", "clean/train"),
        ("train/noisy_images", "train/ground_truth"),
        ("data/set/train/scan", "data/set/train/clean"),
        ("clean_data/train/noisy", "clean_data/train/gt"),
        ("my-test-data/noisy", "my-test-data/clean"),
        ("denoising-dirty-documents/train", "denoising-dirty-documents/train_cleaned"),
    ],
)
def test_folders_are_told_by_the_words_in_their_names(
    noisy: str, clean: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, noisy + "/{1,2,3}.png", clean + "/{1,2,3}.png")

    layout = detect_layout(tmp_path)

    assert (layout.noisy, layout.clean) == (noisy, clean)
    assert (layout.noisy_ending, layout.clean_ending) == ("", "")


@pytest.mark.parametrize("suffixes", [("jpg", "png"), ("png", "jpg")])
def test_roles_do_not_depend_on_the_order_or_number_of_files(
    suffixes: tuple[str, str], tmp_path: Path
) -> None:
    lay_out(tmp_path, "a_target/{1,2,3,4}.png", "z_input/{1,2,3}.png")

    layout = detect_layout(tmp_path)

    assert (layout.noisy, layout.clean) == ("z_input", "a_target")


@pytest.mark.parametrize(
    ("noisy", "clean"),
    [
        ("_noisy", "_clean"),
        ("_real", "_mean"),
        ("-LQ", "-GT"),
        (".scan", ".clean"),
        ("_noisy25", "_gt"),
        ("_input", ""),
        ("", "_gt"),
    ],
)
def test_pairs_in_one_folder_are_told_by_their_endings(
    noisy: str, clean: str, tmp_path: Path
) -> None:
    for stem in ("wall_1", "wall_2", "Page.3"):
        lay_out(tmp_path, f"{stem}{noisy}.png", f"{stem}{clean}.png")

    layout = detect_layout(tmp_path)

    assert (layout.noisy, layout.clean) == (".", ".")
    assert (layout.noisy_ending, layout.clean_ending) == (noisy, clean)
    assert match_pairs(tmp_path, layout).pairs == 3


def test_endings_are_found_in_two_folders_as_well(tmp_path: Path) -> None:
    lay_out(tmp_path, "train/noisy/{1,2,3}_x_LQ.png", "train/clean/{1,2,3}_x.png")
    lay_out(tmp_path, "test/noisy/{7,8}_LQ.png")

    layout = detect_layout(tmp_path)

    assert (layout.noisy_ending, layout.clean_ending) == ("_LQ", "")
    assert (layout.test, layout.test_ending) == ("test/noisy", "_LQ")


def test_equal_names_need_no_endings(tmp_path: Path) -> None:
    lay_out(tmp_path, "noisy/Page.{1,2}.01.png", "clean/Page.{1,2}.01.png")

    layout = detect_layout(tmp_path)

    assert (layout.noisy_ending, layout.clean_ending) == ("", "")


@pytest.mark.parametrize(
    "names",
    [
        ("a/{1,2}.png", "b/{1,2}.png"),
        ("noisy/{1,2}.png", "scan/{1,2}.png"),
        ("clean/{1,2}.png", "gt/{1,2}.png"),
        ("noisy/{1,2}.png", "masks/{1,2}.png"),
        ("noisy/{1,2}.png", "test/{1,2}.png"),
        ("noisy/{1,2}.png", "clean/{3,4}.png"),
        ("clean_noisy/{1,2}.png", "images/{1,2}.png"),
        ("noisy15/{1,2}.png", "noisy25/{1,2}.png", "clean/{1,2}.png"),
        ("a/noisy/{1,2}.png", "a/clean/{1,2}.png", "b/noisy/{1,2}.png", "b/clean/{1,2}.png"),
        ("train/noisy/{1,2}.png", "train/clean/{1,2}.png", "x/scan/{1,2}.png", "x/gt/{1,2}.png"),
        ("{1,2}_a.png", "{1,2}_b.png"),
        ("{1,2}_noisy.png", "{1,2}_mask.png"),
        ("{1,2}_noisy15.png", "{1,2}_noisy25.png", "{1,2}_clean.png"),
        ("only/{1,2}.png",),
    ],
)
def test_what_names_do_not_decide_is_asked(names: tuple[str, ...], tmp_path: Path) -> None:
    lay_out(tmp_path, *names)

    with pytest.raises(DataError, match="cannot tell noisy from clean pictures") as caught:
        detect_layout(tmp_path)

    assert "(2 pictures)" in str(caught.value) or "pictures)" in str(caught.value)
    assert f"root = '{tmp_path}'" in caught.value.hint
    assert "--from contest.toml" in caught.value.hint


def test_a_folder_without_pictures_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    (tmp_path / "noisy" / "a.npy").write_bytes(b"x")

    with pytest.raises(DataError, match=r"found no pictures \(known suffixes: \.png"):
        detect_layout(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot list the folder"):
        detect_layout(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("tests", "test", "truth"),
    [
        (("test/{7,8}.png",), "test", ""),
        (("test_images/{7,8}.png",), "test_images", ""),
        (("test/noisy/{7,8}.png", "test/clean/{7,8}.png"), "test/noisy", "test/clean"),
        (("test/scan/{7,8}.png", "truth/clean/{7,8}.png"), "test/scan", "truth/clean"),
        (("test/scan/{7,8}.png", "test/clean/{8,9}.png"), "test/scan", ""),
        (("val/noisy/{7,8}.png", "val/clean/{7,8}.png"), "", ""),
        (("test1/{7,8}.png", "test2/{7,8}.png"), "", ""),
        ((), "", ""),
    ],
)
def test_test_pictures_and_their_truths_are_found(
    tests: tuple[str, ...], test: str, truth: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, "train/noisy/{1,2}.png", "train/clean/{1,2}.png", *tests)

    layout = detect_layout(tmp_path)

    assert (layout.noisy, layout.clean) == ("train/noisy", "train/clean")
    assert (layout.test, layout.truth) == (test, truth)
    assert bool(test) or any("test pictures" in note for note in layout.notes)


def test_validation_pairs_are_left_out_with_a_note(tmp_path: Path) -> None:
    lay_out(tmp_path, "train/noisy/{1,2}.png", "train/clean/{1,2}.png", "val/noisy/{1,2}.png")

    assert any("val/noisy was left out" in note for note in detect_layout(tmp_path).notes)


@pytest.mark.parametrize(
    ("noisy", "clean", "channels"),
    [(GRAY, GRAY, 1), (GRAY_AS_RGB, GRAY, 1), (GRAY, COLOUR, 3), (COLOUR, GRAY, 3)],
)
def test_a_contest_is_gray_if_both_sides_are(
    noisy: bytes, clean: bytes, channels: int, tmp_path: Path
) -> None:
    lay_out(tmp_path, "noisy/{1,2}.png", content=noisy)
    lay_out(tmp_path, "clean/{1,2}.png", content=clean)

    assert detect_layout(tmp_path).channels == channels


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "noisy/{1,2}.png", "clean/{1,2}.png")
    (tmp_path / "noisy/1.png").write_bytes(b"<html>")

    with pytest.raises(DataError, match=r"noisy/1\.png is not an image"):
        detect_layout(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "format", "metric"),
    [
        ("sampleSubmission.csv", "id,value\n7_1_1,1\n7_2_1,0.5\n", "pixels-long", "rmse"),
        ("sample_submission.csv", "Image,Y\r\n7,0.0\r\n8,1\r\n", "mean-luma", "mae-mean-luma"),
        ("sample_submission.csv", "Image,Y\n7,0.0\nother,1\n", "zip", "psnr"),
        ("sample_submission.csv", "Image,Y\n7,text\n8,text\n", "zip", "psnr"),
        ("sample_submission.csv", "ID,a,b\n7,1,2\n", "zip", "psnr"),
        ("sample_submission.csv", "", "zip", "psnr"),
        ("info/SampleSubmission.CSV", "\ufeffid,v\n7,1\n8,2\n", "mean-luma", "mae-mean-luma"),
    ],
)
def test_a_sample_submission_tells_its_format(
    name: str, text: str, format: str, metric: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, "train/noisy/{1,2}.png", "train/clean/{1,2}.png", "test/{7,8}.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    layout = detect_layout(tmp_path)

    assert (layout.sample, layout.format, layout.metric) == (name, format, metric)
    assert any(name in note for note in layout.notes)


def test_another_csv_is_no_sample(tmp_path: Path) -> None:
    lay_out(tmp_path, "noisy/{1,2}.png", "clean/{1,2}.png")
    (tmp_path / "groups.csv").write_text("id,value\n1_1_1,1\n")

    assert detect_layout(tmp_path).sample == ""


def test_pictures_without_partner_are_counted_on_both_sides(tmp_path: Path) -> None:
    lay_out(tmp_path, "noisy/{1,2,3}.png", "clean/{2,3,4,5}.png")

    matched = match_pairs(tmp_path, Contest(slug="x", noisy="noisy", clean="clean"))

    assert matched.pairs == 2
    assert (matched.noisy_alone, matched.clean_alone) == (("1",), ("4", "5"))


def test_real_pictures_are_recognised(shared: Path) -> None:
    documents = detect_layout(shared / "dirty-documents")
    photographs = detect_layout(shared / "polyu")

    assert documents == Layout(noisy="train", clean="train_cleaned", test="test", channels=1)
    assert (photographs.noisy_ending, photographs.clean_ending) == ("_real", "_mean")
    assert match_pairs(shared / "polyu", photographs).pairs == 55
