"""Damaged Parquet files: named, whoever reads them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.knowledge.outputs import read_descriptions
from clinprompt.parquet import read_frame
from registry.package import accepted_descriptions


@pytest.mark.parametrize("read", [read_descriptions, accepted_descriptions])
def test_a_damaged_table_of_descriptions_is_named(tmp_path: Path, read: object) -> None:
    path = tmp_path / "descriptions.parquet"
    pq.write_table(pa.table({"class": ["a", "b"] * 50}), path)
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-20], whole[:100] + whole[120:], whole.replace(b"PAR1", b"PAR2")):
        path.write_bytes(data)
        with pytest.raises(InputCorrupt, match=r"descriptions\.parquet is not a readable Parquet file"):
            read(path)  # type: ignore[operator]
    path.write_bytes(whole)
    with pytest.raises(InputCorrupt, match=r"descriptions\.parquet lacks the column 'accepted'"):
        read(path)  # type: ignore[operator]
    path.unlink()
    with pytest.raises(InputMissing, match=r"descriptions\.parquet does not exist; run the stage describe"):
        read(path)  # type: ignore[operator]


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"class": text}), path)
    with pytest.raises(InputCorrupt, match=r"table\.parquet is not a readable Parquet file .*UTF"):
        read_frame(path, ["class"], "describe")
