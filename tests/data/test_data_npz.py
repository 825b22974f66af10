"""`.npz` files that are none: refused in a sentence, before memory is taken."""

import io
import zipfile
from pathlib import Path

import pytest

from clinprompt.data.layouts.npz import MedmnistOptions, read
from clinprompt.errors import InputCorrupt


def zipped(header: str, *, size: int | None = None, version: int = 1) -> bytes:
    """An .npz file with train_images alone: a header, and 8 bytes of pixels."""
    text = header.encode() + b"\n"
    array = b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text + bytes(8)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train_images.npy", array)
    data = bytearray(stream.getvalue())
    if size is not None:
        place = data.index(b"PK\1\2")
        data[place + 24 : place + 28] = size.to_bytes(4, "little")
    return bytes(data)


SMALL = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2)}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zipped(SMALL.replace("2, 2, 2", "10**9, 2")), "not a readable .npz file of plain arrays"),
        (zipped(SMALL.replace("2, 2, 2", f"{10**9}, {10**9}")), "promises uint8 [1000000000, 1000000000]"),
        (zipped(SMALL.replace("2, 2, 2", "-2, -2, 2")), "promises uint8 [-2, -2, 2], which it does not hold"),
        (zipped(SMALL.replace("(2, 2, 2)", "(" * 300)), "not a readable .npz file of plain arrays"),
        (zipped(SMALL.replace("|u1", "|O")), "it holds Python objects"),
        (zipped(SMALL, size=2**31), "can't hold 2147483648 bytes"),
        (zipped(SMALL, version=7), "an array of NumPy's format 7.0"),
        (zipped(SMALL).replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x63\0"), "compressed in a way that NumPy does"),
        (zipped(SMALL).replace(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff"), "zip file version 25.5"),
        (zipped(SMALL).replace(b"\x14\0\0\0", b"\x14\0\1\0"), "encrypted"),
    ],
    ids=range(10),
)  # fmt: skip
def test_an_npz_file_that_is_none_is_refused_before_memory_is_taken(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "toy.npz"
    file.write_bytes(data)
    with pytest.raises(InputCorrupt) as error:
        read(file, None, MedmnistOptions())  # type: ignore[arg-type] # the card is not looked at
    assert reason in str(error.value)
    assert str(file) in str(error.value)


def test_a_folder_with_the_name_of_an_npz_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputCorrupt, match="is not an .npz file, but a folder"):
        read(tmp_path, None, MedmnistOptions())  # type: ignore[arg-type]
