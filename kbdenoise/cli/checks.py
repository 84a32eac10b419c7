"""What `doctor` looks at: each check is a function that returns findings and changes nothing."""

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kbdenoise.cli.complete import contests_in
from kbdenoise.cli.words import size
from kbdenoise.errors import first_line

if TYPE_CHECKING:
    from kbdenoise.contests.kaggle_client import Credential

State = Literal["ok", "absent", "warning", "broken"]

_PACKAGES = {
    "numpy": "numpy",
    "scikit-image": "skimage",
    "pillow": "PIL",
    "pandas": "pandas",
    "pydantic": "pydantic",
    "rich": "rich",
    "safetensors": "safetensors",
    "tomli-w": "tomli_w",
}
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_NETWORK_VARIABLES = (
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
    *("NO_PROXY", "no_proxy", "KBDENOISE_TIMEOUT", *_CERTIFICATES),
)
_LITTLE_DISK_BYTES = 5 * 1024**3
_LITTLE_MEMORY_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    state: State
    """'absent' is no fault; only 'broken' keeps kbdenoise from working."""
    text: str
    cure: str = ""


def examine(*, data: Path, runs: Path, submissions: Path) -> list[Finding]:
    """Look at this machine, in the order in which things can stop a person."""
    return [
        *_python(),
        *_packages(),
        *_torch(),
        _onnx(),
        _coreml(),
        *_opencv(),
        *_machine(),
        *_folders(data, runs, submissions),
        *_contests(data),
        *_kaggle(),
    ]


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    new_enough = sys.version_info >= (3, 11)
    yield Finding(
        name="python",
        state="ok" if new_enough else "broken",
        text=text,
        cure="" if new_enough else "install Python 3.11 or newer",
    )


def _packages() -> Iterator[Finding]:
    missing = [package for package, module in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        cure = f"pip install {' '.join(missing)}"
        yield Finding(name="packages", state="broken", text="some are missing", cure=cure)
    else:
        yield Finding(
            name="packages", state="ok", text=f"all {len(_PACKAGES)} others are installed"
        )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(
            name="torch", state="broken", text=first_line(error), cure="pip install torch"
        )
        return
    from kbdenoise.devices import device_report

    yield Finding(name="torch", state="ok", text=torch.__version__)
    for device, present, reason in device_report():
        yield Finding(name=device, state="ok" if present else "absent", text=reason)
    yield _kernels()


def _kernels() -> Finding:
    from kbdenoise.models.kba_library import trial

    found = trial()
    if found.library is not None:
        return Finding(name="kernels", state="ok", text=found.reason)
    return Finding(
        name="kernels",
        state="absent",
        text=f"{found.reason}; KBNet computes on the CPU by torch alone, at half the speed",
        cure="install a C compiler: apt install gcc, or xcode-select --install",
    )


def _onnx() -> Finding:
    """Whether models can be written for ONNX Runtime and run by it, and by what."""
    missing = [module for module in ("onnx", "onnxruntime") if find_spec(module) is None]
    if missing:
        return Finding(
            name="onnx",
            state="absent",
            text=f"{' and '.join(missing)} not installed; only --format onnx and --engine onnx "
            "need it",
            cure="pip install 'kbdenoise[onnx]'",
        )
    from kbdenoise.inference.onnx_engine import provider_words

    return Finding(name="onnx", state="ok", text=f"ONNX Runtime {provider_words()}")


def _coreml() -> Finding:
    """Whether packages for Core ML can be written here, and whether they can be run."""
    version = version_of("coremltools") if find_spec("coremltools") else ""
    if not version:
        return Finding(
            name="coreml",
            state="absent",
            text="coremltools is not installed; only --format coreml and --engine coreml need it",
            cure="pip install coremltools==9.0 (for macOS, and Linux on x86-64; Python <3.14)",
        )
    running = "Core ML runs them here" if sys.platform == "darwin" else "they run on macOS alone"
    text = f"coremltools {version} writes packages; {running}"
    return Finding(name="coreml", state="ok", text=text)


def _opencv() -> Iterator[Finding]:
    found = [package for package in _OPENCV if version_of(package)]
    try:
        import cv2
    except (ImportError, OSError) as error:
        text = first_line(error)
        display = "libGL" in text or "libgthread" in text
        cure = "pip uninstall opencv-python; pip install opencv-python-headless"
        yield Finding(
            name="opencv",
            state="broken",
            text=text,
            cure=cure if display else "pip install opencv-python",
        )
        return
    if len(found) > 1:
        yield Finding(
            name="opencv",
            state="warning",
            text=f"{' and '.join(found)} are both installed and overwrite each other's files",
            cure=f"pip uninstall {' '.join(found)}; pip install opencv-python",
        )
    else:
        yield Finding(name="opencv", state="ok", text=cv2.__version__)


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(Path.cwd())).free
    little = free < _LITTLE_DISK_BYTES
    yield Finding(
        name="disk",
        state="warning" if little else "ok",
        text=f"{size(free)} free",
        cure="free some space; a contest of 10,000 pages takes about 16 GiB" if little else "",
    )
    memory = memory_bytes()
    little = 0 < memory < _LITTLE_MEMORY_BYTES
    yield Finding(
        name="memory",
        state="warning" if little else "ok",
        text=f"{size(memory)} for this process" if memory else "unknown",
        cure="close other programs, or use a smaller --batch and --patch" if little else "",
    )
    yield Finding(name="cores", state="ok", text=str(core_count()))


def _folders(*folders: Path) -> Iterator[Finding]:
    refused = [f for f in folders if not os.access(_existing(f.absolute()), os.W_OK | os.X_OK)]
    if refused:
        yield Finding(
            name="folders",
            state="broken",
            text=f"not allowed to write {', '.join(map(str, refused))}",
            cure="go to a folder of your own, or name others with --data and --runs",
        )
    else:
        names = ", ".join(map(str, folders))
        yield Finding(name="folders", state="ok", text=f"{names} can be written")


def _contests(data: Path) -> Iterator[Finding]:
    found = contests_in(data)
    yield Finding(
        name="contests",
        state="ok" if found else "absent",
        text=", ".join(found) if found else f"none in {data}/ yet",
        cure="" if found else "kbdenoise fetch demo",
    )


def _kaggle() -> Iterator[Finding]:
    """The client, the credentials, and the way to the network.

    Kaggle's client is never imported here: it prints, makes folders and asks the network on import.
    """
    from kbdenoise.contests.kaggle_client import credential_remarks, find_credentials

    missing = [name for name in ("kaggle", "six") if find_spec(name) is None]
    if missing:
        yield Finding(
            name="kaggle",
            state="absent",
            text=f"{' and '.join(missing)} not installed; only downloads and uploads need it",
            cure='pip install "kaggle>=2.2.4,<3" six',
        )
    else:
        version = version_of("kaggle") or "of unknown version"
        found = find_credentials()
        usable = [credential.source for credential in found if not credential.fault]
        remarks = credential_remarks(found)
        text = (
            f"{version}, credentials from {usable[0]}" if usable else f"{version}, no credentials"
        )
        cure = "make a token at kaggle.com/settings/api, then export KAGGLE_API_TOKEN=..."
        yield Finding(
            name="kaggle",
            state="warning" if remarks else "ok" if usable else "absent",
            text="; ".join([text, *(remark.partition(": chmod")[0] for remark in remarks)]),
            cure=_credential_cure(found) if remarks else "" if usable else cure,
        )
    yield _network()


def _credential_cure(found: "list[Credential]") -> str:
    exposed = [c.exposed for c in found if c.exposed]
    if exposed:
        return f"chmod 600 {shlex.quote(exposed[0])}"
    broken = [c.source for c in found if c.fault]
    return f"repair or remove {broken[0]}" if broken else "keep one of them"


def _network() -> Finding:
    """What leads the way to the network, by the names of the variables: values hold passwords."""
    set_here = [name for name in _NETWORK_VARIABLES if os.environ.get(name)]
    missing = [n for n in _CERTIFICATES if os.environ.get(n) and not os.path.exists(os.environ[n])]
    text = f"by {', '.join(set_here)}" if set_here else "direct, by the system's certificates"
    if os.environ.get("KBDENOISE_OFFLINE"):
        text = "not used: KBDENOISE_OFFLINE is set"
    return Finding(
        name="network",
        state="warning" if missing else "ok",
        text=text + (f"; the file of {missing[0]} is missing" if missing else ""),
        cure=f"correct {missing[0]}, or unset it" if missing else "",
    )


def memory_bytes() -> int:
    """Memory that this process may have: the machine's or its container's, 0 where unknown."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or 'max'
            continue
    return min(limits, default=0)


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version_of(package: str) -> str:
    """The installed version, empty if the package is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(p for p in (folder, *folder.parents) if os.path.exists(p))
