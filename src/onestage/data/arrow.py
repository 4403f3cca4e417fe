"""Parquet through pyarrow, which is imported when the first file is read. One thread: loading processes are forked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.spec import UserError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

ROWS = 1024
"""Rows of a table of descriptions that are read in one go."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what pyarrow says of a file into a user's error.

    Raises:
        UserError: when the file inside the block is no Parquet, or damaged.
    """
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ValueError, ArrowException) as error:  # ValueError: texts that are no UTF-8
        reason = str(error).split("\n", 1)[0][:200]
        raise UserError(f"{path}: cannot be read as Parquet ({reason})") from None


def open_file(path: Path) -> ParquetFile:
    """A Parquet file, of which the footer is read.

    Raises:
        UserError: when pyarrow is not installed, or it is no Parquet.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: Parquet is read by pyarrow: pip install 'onestage[hf]'") from None
    with reading(path):
        return ParquetFile(path, memory_map=False, pre_buffer=False)


def rows_of(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, with these columns as plain values; a few at a time.

    Raises:
        UserError: when it is damaged.
    """
    with open_file(path) as file, reading(path):
        for batch in file.iter_batches(ROWS, columns=names, use_threads=False):
            yield from batch.to_pylist()


def columns_of(path: Path) -> list[str]:
    """The names of its columns.

    Raises:
        UserError: when it is no Parquet.
    """
    with open_file(path) as file:
        return list(file.schema_arrow.names)
