import functools
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from kbdenoise.cli import checks
from kbdenoise.cli.app import main
from kbdenoise.cli.checks import Finding, examine
from kbdenoise.cli.complete import contests_in
from kbdenoise.models import kba_library

Captured = pytest.CaptureFixture[str]

compile_anew = kba_library.trial
compile_once = functools.cache(kba_library.trial)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A person with an empty home and nothing set; the kernels are compiled once for all tests."""
    monkeypatch.setattr(kba_library, "trial", compile_once)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in checks._NETWORK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def finding(name: str) -> Finding:
    places = {"data": Path("data"), "runs": Path("runs"), "submissions": Path("submissions")}
    return next(f for f in examine(**places) if f.name == name)


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    def version(package: str) -> str:
        if package not in packages:
            raise metadata.PackageNotFoundError(package)
        return "4.10.0"

    monkeypatch.setattr(checks.metadata, "version", version)


def test_a_machine_that_can_run_these_tests_is_healthy(capsys: Captured) -> None:
    code = main(["doctor", "--json"])

    content = json.loads(capsys.readouterr().out)
    states = {f["name"]: f["state"] for f in content["findings"]}
    assert code == 0
    assert content["healthy"] is True
    assert {"python", "torch", "kernels", "cpu", "cuda", "mps", "opencv", "disk", "memory"} <= set(
        states
    )
    assert "broken" not in states.values()


def test_looking_changes_nothing(
    nobody: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kba_library, "trial", compile_anew)

    main(["doctor"])

    assert sorted(p.name for p in nobody.parent.iterdir()) == ["home"]
    assert list(nobody.iterdir()) == []


def test_quiet_tells_only_what_is_wrong(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = Finding(name="disk", state="warning", text="1 MiB free", cure="free some space")
    fine = Finding(name="torch", state="ok", text="2.13.0")
    monkeypatch.setattr(checks, "examine", lambda **_: [fine, faulty])

    code = main(["doctor", "-q"])

    assert code == 0
    assert capsys.readouterr() == ("disk: 1 MiB free\n", "")


def test_only_what_is_essential_makes_the_doctor_fail(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Finding(name="torch", state="broken", text="no module", cure="pip install torch")
    monkeypatch.setattr(checks, "examine", lambda **_: [broken])

    code = main(["doctor"])

    out, err = capsys.readouterr()
    assert code == 1
    assert out.endswith("  ✗ torch     no module\n              cure: pip install torch\n")
    assert err == ""


def test_two_opencv_packages_are_a_warning_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "opencv-python", "opencv-python-headless", "kaggle")

    found = finding("opencv")

    assert found.state == "warning"
    assert "opencv-python and opencv-python-headless are both installed" in found.text
    assert found.cure.startswith("pip uninstall opencv-python opencv-python-headless")


def test_without_kaggle_everything_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda n: None if n == "kaggle" else real(n))

    found = finding("kaggle")

    assert (found.state, found.cure) == ("absent", 'pip install "kaggle>=2.2.4,<3" six')


def test_without_onnx_everything_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "by the CPU" in finding("onnx").text
    real = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda n: None if n == "onnxruntime" else real(n))

    found = finding("onnx")

    assert (found.state, found.cure) == ("absent", "pip install 'kbdenoise[onnx]'")
    assert found.text.startswith("onnxruntime not installed; only --format onnx")


def put_file(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def put(home: Path, _: pytest.MonkeyPatch) -> None:
        (home / ".kaggle").mkdir(exist_ok=True)
        content = '{"username": "SECRET", "key": "SECRET"}' if name == "kaggle.json" else "SECRET"
        (home / ".kaggle" / name).write_text(content)
        (home / ".kaggle" / name).chmod(0o600)

    return put


def put_variables(*names: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def put(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in names:
            monkeypatch.setenv(name, "SECRET")

    return put


@pytest.mark.parametrize(
    ("put", "source"),
    [
        (put_variables("KAGGLE_API_TOKEN"), "KAGGLE_API_TOKEN"),
        (put_variables("KAGGLE_USERNAME", "KAGGLE_KEY"), "KAGGLE_USERNAME and KAGGLE_KEY"),
        (put_file("access_token"), ".kaggle/access_token"),
        (put_file("kaggle.json"), ".kaggle/kaggle.json"),
        (put_file("credentials.json"), ".kaggle/credentials.json"),
    ],
)
def test_the_source_of_credentials_is_named_and_never_their_value(
    nobody: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    put: Callable[[Path, pytest.MonkeyPatch], None],
    source: str,
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    put(nobody, monkeypatch)

    code = main(["doctor"])

    out, err = capsys.readouterr()
    assert code == 0
    assert source in out
    assert "SECRET" not in out + err


def test_a_token_beside_a_key_is_a_warning(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    put_variables("KAGGLE_API_TOKEN")(nobody, monkeypatch)
    put_file("kaggle.json")(nobody, monkeypatch)

    found = finding("kaggle")

    assert (found.state, found.cure) == ("warning", "keep one of them")
    assert "KAGGLE_API_TOKEN is tried first, then " in found.text


def test_credentials_that_others_can_read_are_a_warning(
    nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    put_file("kaggle.json")(nobody, monkeypatch)
    (nobody / ".kaggle" / "kaggle.json").chmod(0o644)

    found = finding("kaggle")

    assert found.state == "warning"
    assert found.cure == f"chmod 600 {nobody / '.kaggle' / 'kaggle.json'}"


def test_a_key_file_that_the_client_ignores_is_a_warning(
    nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file("kaggle.json")(nobody, monkeypatch)
    (nobody / ".kaggle" / "kaggle.json").write_text("{SECRET")

    found = finding("kaggle")

    assert found.state == "warning" and "it is not valid JSON" in found.text
    assert found.cure == f"repair or remove {nobody / '.kaggle' / 'kaggle.json'}"
    assert "SECRET" not in found.text


def test_proxies_are_named_and_never_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("network").text == "direct, by the system's certificates"
    monkeypatch.setenv("HTTPS_PROXY", "http://user:SECRET@proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    found = finding("network")

    assert found.state == "warning" and "by HTTPS_PROXY, REQUESTS_CA_BUNDLE" in found.text
    assert "SECRET" not in found.text and found.cure == "correct REQUESTS_CA_BUNDLE, or unset it"


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = checks.shutil.disk_usage("/")._replace(free=1024**3)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage)

    found = finding("disk")

    assert (found.state, found.text) == ("warning", "1.0 GiB free")
    assert found.cure


def test_a_folder_that_cannot_be_written_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)

    found = finding("folders")

    assert found.state == "broken"
    assert "data, runs, submissions" in found.text


def test_contests_are_listed() -> None:
    Path("data", "demo").mkdir(parents=True)
    Path("data", "demo", "contest.toml").touch()

    assert finding("contests").text == "demo"


def test_the_left_overs_of_a_killed_fetch_are_no_contests() -> None:
    for name in ("tiny", ".tiny.old-12345678"):
        Path("data", name).mkdir(parents=True)
        Path("data", name, "contest.toml").touch()

    assert finding("contests").text == "tiny"
    assert contests_in(Path("data")) == ["tiny"]


def test_a_closed_folder_above_is_a_finding_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(checks.os.path, "exists", lambda path: Path(path) == Path("/"))
    monkeypatch.setattr(checks.os, "access", lambda *_: False)

    assert finding("contests").text == "none in data/ yet"
    assert finding("folders").state == "broken"
    assert finding("kaggle").state == "absent"


def test_a_machine_without_compiled_kernels_is_told_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        kba_library,
        "trial",
        lambda: kba_library.Native(library=None, reason="there is none"),
    )

    found = checks._kernels()

    assert (found.state, "half the speed" in found.text) == ("absent", True)
    assert found.text.startswith("there is none") and "apt install gcc" in found.cure


def test_it_tells_whether_packages_for_core_ml_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(checks, "find_spec", lambda name: name)
    installed(monkeypatch, "coremltools")

    here = checks._coreml()
    installed(monkeypatch)
    absent = checks._coreml()

    assert here.text == "coremltools 4.10.0 writes packages; they run on macOS alone"
    assert (absent.state, absent.cure.partition(" (")[0]) == (
        "absent",
        "pip install coremltools==9.0",
    )
