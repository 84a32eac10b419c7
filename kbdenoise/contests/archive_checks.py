"""What a zip, and an entry of one, may be: refused before a byte of it is written.

A name that would leave its folder is refused, never "repaired"; so are links, encrypted entries and
what is no zip at all, which is called by its name.
"""

import stat
import zipfile
from pathlib import Path

from kbdenoise.errors import DataError

# Made by operating systems beside what the user meant to pack.
JUNK_FOLDERS = {"__MACOSX"}
JUNK_FILES = {".ds_store", "thumbs.db", "desktop.ini"}


class ArchiveError(DataError):
    """The archive itself is at fault, not this machine."""


class DamagedArchiveError(ArchiveError):
    """The archive is no zip, or what it holds does not fit its own checksums."""


_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
_OTHER_HEADS = {
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED = 0x1 | 0x40  # general-purpose flag bits 0 and 6
NOT_A_CONTEST = "this is not how a contest packs its pictures; check where the file came from"
UNPACK_YOURSELF = "unpack it with another program and give the folder with --from"


def check_is_zip(path: Path, *, label: str = "") -> None:
    """Raise DataError, saying what it is instead, unless the file begins as a zip does."""
    label = label or str(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DataError(
            f"cannot read {label}: {error.strerror}",
            hint="check that it exists and that you may read it",
        ) from error
    if head.startswith(_ZIP_HEADS):
        return
    if not head:
        raise DamagedArchiveError(f"{label} is empty (0 bytes)", hint="download it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        raise DamagedArchiveError(
            f"{label} is a web page saved under the name of a zip, not a zip",
            hint="the site answered with a login, rules or quota page: log in (and accept the "
            "contest's rules) in a browser, download the file there, and use that one",
        )
    for magic, what in _OTHER_HEADS.items():
        if head.startswith(magic):
            raise DamagedArchiveError(
                f"{label} is {what}, not a zip",
                hint=UNPACK_YOURSELF,
            )
    raise DamagedArchiveError(
        f"{label} is not a zip (it begins with {head[:8]!r})",
        hint="download it again, or give a folder with --from",
    )


def name_problem(name: str) -> str:
    """What makes a file's name unsafe, in words; empty if nothing does."""
    parts = name.removesuffix("/").split("/")
    if "\\" in name:
        return "has a backslash in its name"
    if name.startswith("/"):
        return "has an absolute path"
    if name[1:2] == ":" and name[0].isalpha():
        return "names a drive"
    if ".." in parts:
        return "would leave its folder by '..'"
    too_long = len(name) > 1000 or any(len(part.encode()) > 255 for part in parts)
    if too_long or {"", "."}.intersection(parts) or any(ord(letter) < 32 for letter in name):
        return "has an impossible name"
    return ""


def kind_problem(entry: zipfile.ZipInfo) -> str:
    """What makes an entry's kind unsafe or unreadable, in words; empty if nothing does."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return f"is packed by method {entry.compress_type}, which is not supported here"
    return ""


def is_junk(name: str) -> bool:
    """Whether an operating system, not a person, has packed this file."""
    parts = name.split("/")
    return (
        bool(JUNK_FOLDERS.intersection(parts))
        or parts[-1].lower() in JUNK_FILES
        or parts[-1].startswith("._")  # AppleDouble
    )
