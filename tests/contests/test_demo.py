import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests import demo
from kbdenoise.contests.demo import make_demo_contest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import read_header, read_picture
from kbdenoise.imaging.luma import mean_luma_of_pixels

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(demo.__file__).parents[2])}
NAME = re.compile(r"(?P<page>.+\.\d{5})\.(?P<crop>\d{2})\.tif")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    """Three training pages and two test pages."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    make_demo_contest(folder, train_pages=3, test_pages=2, workers=1)
    return folder


def test_the_folder_holds_pairs_a_test_and_its_truth(contest):
    assert names(contest) == ["README.txt", "test", "train", "truth"]
    assert names(contest / "train/scan") == names(contest / "train/clean")
    assert names(contest / "test/scan") == names(contest / "truth/clean")
    assert len(names(contest / "train/scan")) == 6
    assert len(names(contest / "test/scan")) == 4


def test_names_tell_title_page_and_crop_and_every_page_has_both_crops(contest):
    for part in ("train/scan", "test/scan"):
        matches = [NAME.fullmatch(name) for name in names(contest / part)]
        assert all(matches)
        crops = {}
        for match in matches:
            crops.setdefault(match["page"], []).append(match["crop"])
        assert all(found == ["01", "02"] for found in crops.values())


def test_no_page_is_in_training_and_in_test(contest):
    pages = [
        {NAME.fullmatch(name)["page"] for name in names(contest / part)}
        for part in ("train/scan", "test/scan")
    ]

    assert not pages[0] & pages[1]


def test_one_title_has_a_dot_in_its_name():
    assert any("." in title for title in demo.TITLES)


def test_every_picture_is_a_512_pixel_8_bit_rgb_lzw_tiff(contest):
    for path in contest.rglob("*.tif"):
        header = read_header(path)
        assert (header.width, header.height, header.channels) == (512, 512, 3)
        assert read_picture(path).pixels.dtype == np.uint8
        assert path.stat().st_size < 512 * 512 * 3
        assert lzw(path)


def lzw(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.info["compression"] == "tiff_lzw"


def test_a_scan_is_its_page_degraded(contest):
    for path in (contest / "train/scan").iterdir():
        scan = read_picture(path).pixels.astype(float)
        clean = read_picture(contest / "train/clean" / path.name).pixels.astype(float)
        psnr = 10 * np.log10(255**2 / np.mean((scan - clean) ** 2))
        assert 14 < psnr < 30
        assert np.corrcoef(scan.ravel(), clean.ravel())[0, 1] > 0.8


def test_both_crops_of_a_page_are_cut_from_one_scan(monkeypatch, tmp_path):
    scans, written = [], []
    print_and_scan = demo.print_and_scan

    def remember(*args, **kwargs):
        scans.append(print_and_scan(*args, **kwargs))
        return scans[-1]

    monkeypatch.setattr(demo, "print_and_scan", remember)
    monkeypatch.setattr(demo, "write_image", lambda path, image: written.append((path, image)))
    make_demo_contest(tmp_path / "demo", train_pages=1, test_pages=1, workers=1)

    crops = {path.name: image for path, image in written if path.parent.name == "scan"}
    assert len(scans) == 2
    assert len(crops) == 4
    for name, crop in crops.items():
        other = crops[name.replace(".01.tif", ".02.tif")]
        (page,) = [scan for scan in scans if np.shares_memory(scan, crop)]
        assert np.shares_memory(page, other)
    assert not any(
        np.may_share_memory(crops[name], crops[name.replace(".01.tif", ".02.tif")])
        for name in crops
        if name.endswith(".01.tif")
    )


def test_one_seed_gives_the_same_bytes_in_one_process_and_in_several(contest, tmp_path):
    make_demo_contest(tmp_path / "again", train_pages=3, test_pages=2, workers=2)

    assert bytes_of(tmp_path / "again") == bytes_of(contest)


def test_another_seed_gives_other_pictures(tmp_path):
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        make_demo_contest(folder, train_pages=1, test_pages=1, seed=seed, workers=1)

    first, second = (set(bytes_of(tmp_path / seed).values()) for seed in ("1", "2"))
    assert not first & second


def test_doing_nothing_leaves_a_gap_worth_closing(contest):
    gaps = [
        mean_luma_of_pixels(read_picture(path).pixels)
        - mean_luma_of_pixels(read_picture(contest / "train/clean" / path.name).pixels)
        for path in (contest / "train/scan").iterdir()
    ]

    assert np.abs(gaps).max() > 1.0
    assert np.abs(gaps).max() < 60.0


def test_an_empty_folder_is_filled_and_progress_counts_every_sheet_to_the_end(tmp_path):
    heard = []
    (tmp_path / "demo").mkdir()

    make_demo_contest(
        tmp_path / "demo",
        train_pages=1,
        test_pages=3,
        workers=1,
        progress=lambda done, total: heard.append((done, total)),
    )

    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert len(names(tmp_path / "demo/test/scan")) == 6
    assert len(names(tmp_path / "demo/train/scan")) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path, workers):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_contest(
            tmp_path / "demo", train_pages=4, test_pages=1, workers=workers, progress=interrupt
        )

    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_folder(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from kbdenoise.contests.demo import make_demo_contest\n"
        "make_demo_contest(Path('demo'), train_pages=40, test_pages=1, workers=1,\n"
        "    progress=lambda done, total: Path('started').touch())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=ENVIRONMENT)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)

    process.kill()

    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "demo").exists()
    assert all(name.startswith(".demo.part-") or name == "started" for name in names(tmp_path))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told by /proc")
def test_a_killed_run_takes_its_workers_along(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from kbdenoise.contests.demo import make_demo_contest\n"
        "make_demo_contest(Path('demo'), train_pages=400, test_pages=1, workers=2,\n"
        "    progress=lambda done, total: Path('started').touch())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=ENVIRONMENT)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    workers = children_of(process.pid)

    process.kill()
    process.wait()

    assert len(workers) >= 2
    until = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def children_of(parent):
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(folder.name))
    return found


def alive(pid):
    """Whether a process runs; one that has ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_script_without_a_main_guard_gets_its_contest_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from kbdenoise.contests.demo import make_demo_contest\n"
        "print('before')\n"
        "make_demo_contest(Path('demo'), train_pages=1, test_pages=1, workers=2)\n"
        "print('after', __file__ == __import__('__main__').__file__)\n"
    )

    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    assert done.stdout == "before\nafter True\n"
    assert len(names(tmp_path / "demo/train/scan")) == 2
    assert names(tmp_path) == ["demo", "script.py"]


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(DataError, match="exists already and is not empty") as caught:
        make_demo_contest(tmp_path, train_pages=1, test_pages=1, workers=1)

    assert "another folder" in caught.value.hint
    assert names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize(
    "numbers", [{"train_pages": 0}, {"test_pages": 0}, {"seed": -1}], ids=lambda n: next(iter(n))
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, numbers):
    with pytest.raises(SettingsError, match="cannot make"):
        make_demo_contest(tmp_path / "demo", **numbers)

    assert list(tmp_path.iterdir()) == []


def test_the_readme_names_seed_and_every_photograph_with_its_note(contest):
    text = (contest / "README.txt").read_text(encoding="utf-8")

    assert "3 training and 2 test pages, seed 0" in text
    assert all(name in text and note in text for name, note in demo.PHOTOGRAPHS.items())
