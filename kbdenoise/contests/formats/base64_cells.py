"""Bytes as the cell of a CSV: base64, plain or written as Python bytes, `b'...'`."""

import binascii

from kbdenoise.contests.formats.coded_rows import BadCell
from kbdenoise.contests.formats.csv_bytes import unquoted

_BEGIN, _END = b"b'", b"'"


def base64_cell(content: bytes, *, bytes_text: bool) -> bytes:
    """A cell that holds `content`; one with Python bytes stands in quotation marks."""
    text = binascii.b2a_base64(content, newline=False)
    return b'"' + _BEGIN + text + _END + b'"' if bytes_text else text


def base64_content(cell: bytes, *, bytes_text: bool) -> bytes:
    """The bytes that a cell holds; raises BadCell."""
    text = unquoted(cell)
    if b"," in text:
        raise BadCell("fields", "there are more fields than columns; write the file again")
    in_bytes = len(text) >= 3 and text.startswith(_BEGIN) and text.endswith(_END)
    if in_bytes != bytes_text:
        wanted = "as Python bytes, b'...'" if bytes_text else "as plain base64, without b'...'"
        raise BadCell(
            "bytes text",
            f"the cell begins with {text[:12].decode(errors='replace')!r} and is not written "
            f"{wanted}; see `bytes_text` in README, or write the file again",
        )
    if in_bytes:
        text = text[len(_BEGIN) : -len(_END)]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise BadCell(
            "base64",
            f"the cell of {len(text):,} letters is not base64 ({str(error).lower()}): it is "
            "damaged or cut short; write the file again",
        ) from None
