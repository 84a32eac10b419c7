"""Pieces of tests: a tiny contest in a zip, and an environment that holds no credential yet."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.imaging.files import encode
from tests.fake_kaggle.server import FakeKaggle

PICTURE = encode(np.full((2, 3, 1), 100, np.uint8), suffix=".png")


def zip_bytes(files: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip in memory."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tiny_archive(*, extra_bytes: int = 60_000) -> bytes:
    """Three pairs, two test pictures, and some noise that makes it worth cutting."""
    noise = np.random.default_rng(5).bytes(extra_bytes)
    files = {f"train/{kind}/{i}.png": PICTURE for kind in ("noisy", "clean") for i in (1, 2, 3)}
    files |= {"test/7.png": PICTURE, "test/8.png": PICTURE, "notes.bin": noise}
    return zip_bytes(files, compression=zipfile.ZIP_STORED)


def clean_environment() -> dict[str, str]:
    """This process's environment without anything of Kaggle's, of proxies or of certificates."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KAGGLE", "KBDENOISE"))
        and not name.lower().endswith("_proxy")
        and name not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "XDG_CONFIG_HOME", "HOME")
    }


MakeKaggle = Callable[..., FakeKaggle]


@pytest.fixture
def make_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeKaggle]:
    """A function that starts a fake Kaggle and leads this process's client to it."""
    running: list[FakeKaggle] = []

    def make(*, credential: str = "key", **contest: object) -> FakeKaggle:
        options = {"slug": "tiny", "archive": tiny_archive()} | contest
        fake = FakeKaggle(**options).__enter__()  # type: ignore[arg-type]
        running.append(fake)
        for name in set(os.environ) - set(clean_environment()):
            monkeypatch.delenv(name)
        for name, value in fake.environment(tmp_path / "home", credential=credential).items():
            monkeypatch.setenv(name, value)
        return fake

    yield make
    for fake in running:
        fake.__exit__(None, None, None)


@pytest.fixture
def kaggle(make_kaggle: MakeKaggle) -> FakeKaggle:
    """A fake Kaggle with the tiny contest; this process's client is led to it."""
    return make_kaggle()
