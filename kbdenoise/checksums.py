"""What tells one file's content from another's."""

import hashlib
from pathlib import Path


def checksum(path: Path) -> str:
    """The SHA-256 of a file, or of all files of a folder, in hexadecimal."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        named = "".join(f"{p.relative_to(path).as_posix()} {checksum(p)}\n" for p in inside)
        return hashlib.sha256(named.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
