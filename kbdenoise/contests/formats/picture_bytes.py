"""Picture files inside a submission: decoded, and refused before they fill the memory."""

import tempfile
from pathlib import Path

from kbdenoise.errors import DataError
from kbdenoise.imaging.files import Pixels, read_header, read_opaque


def decoded_picture(content: bytes, *, suffix: str, height: int, width: int) -> Pixels:
    """The pixels of a picture file given as bytes.

    Raises DataError, whose message speaks of `it`, for what is damaged, no picture, or of another
    size, which is seen before its pixels are unpacked.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"picture{suffix}"
        file.write_bytes(content)
        try:
            header = read_header(file)
            if (header.height, header.width) != (height, width):
                raise DataError(
                    f"it is {header.width}x{header.height} px, not {width}x{height} px",
                    hint="restore the picture at its own size",
                )
            return read_opaque(file)
        except DataError as error:
            raise DataError(error.message.replace(str(file), "it"), hint=error.hint) from error
