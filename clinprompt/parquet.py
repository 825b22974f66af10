"""Parquet files as frames; a damaged one is named."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from clinprompt.errors import InputCorrupt, InputMissing

if TYPE_CHECKING:
    import pandas as pd

# What Arrow and pandas raise of damaged bytes; the memory that such bytes ask for may be impossible, too.
DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def checked_table(path: Path) -> pa.Table:
    """The table, all of whose values were looked at: Arrow itself notices broken text only where it is used.

    Raises:
        FileNotFoundError: there is no such file.
        one of `DAMAGED`: it is not such a file.
    """
    table = pq.read_table(path)
    table.validate(full=True)
    return table


def read_frame(path: Path, columns: Collection[str], stage: str) -> "pd.DataFrame":
    """Read a table that a stage has written.

    Args:
        columns: must be there; others may be.
        stage: who makes it, for the message.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is not a Parquet file with these columns.
    """
    try:
        if not path.is_file():
            raise InputMissing(f"{path} does not exist; run the stage {stage}.")
        frame = checked_table(path).to_pandas()
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise InputCorrupt(f"{path} is not a readable Parquet file ({reason}). Delete it and run again.") from None
    if missing := sorted(set(columns) - set(frame.columns)):
        raise InputCorrupt(f"{path} lacks the column {missing[0]!r}. Delete it and run again.")
    return frame
