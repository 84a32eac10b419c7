"""Dated JSON of what a benchmark printed: machine, versions, commit, command, figures."""

import json
import os
import platform
import subprocess
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_result(
    name: str, figures: dict[str, Any], *, arguments: str = "", variant: str = ""
) -> Path:
    """Write results/DATE_NAME.json; a second measurement of one day replaces the first.

    A `variant`, such as '_at_0.05', stands behind the name.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date.today().isoformat()}_{name}{variant}.json"
    content = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {p: metadata.version(p) for p in ("torch", "numpy", "opencv-python", "pandas")}
        | {"python": platform.python_version()},
        "commit": commit(),
        "command": f"python -m benchmarks.{name} {arguments}".strip(),
        "figures": figures,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, Any]:
    """Processor, cores and memory, as far as the system tells."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    except (OSError, ValueError):
        memory = float("nan")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "memory_gib": round(memory, 1)}


def commit() -> str:
    """The short name of the checkout's commit."""
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return answer.stdout.strip()
