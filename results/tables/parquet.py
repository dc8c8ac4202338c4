"""Atomic writes of files in a run folder, and reads that check the schema version."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from digits_core.errors import RunError, UsageError, printable, reason_of
from results.record.schema import EPOCHS, LEADERBOARD, SCHEMA_VERSION


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that is renamed to `path` when it is complete: readers see the old or the new file."""
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def check_target(path: Path, flag: str = "") -> None:
    """Check that a file can be written at a path.

    Raises:
        UsageError: it is a folder, or its folder does not exist.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder; name a file" if path.is_dir() else f"there is no folder {printable(str(path.parent))}"
        raise UsageError(f"{flag}{printable(str(path))}: {what}")


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically and flush it to disk."""
    with replacing(path) as half, half.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def damaged_copies(path: Path) -> Iterator[Path]:
    """The kept damaged versions of a file: NAME.damaged-1, NAME.damaged-2 and so on."""
    number = 1
    while (found := path.with_name(f"{path.name}.damaged-{number}")).exists():
        yield found
        number += 1


def free_name(path: Path) -> Path:
    """The path for the next damaged version of a file."""
    return path.with_name(f"{path.name}.damaged-{len(list(damaged_copies(path))) + 1}")


def keep_aside(path: Path) -> Path:
    """Copy a damaged file to a new name in the same folder, flushed to disk; nothing is overwritten."""
    content = path.read_bytes()
    while True:
        kept = free_name(path)
        with contextlib.suppress(FileExistsError), kept.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
            return kept


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically."""
    with replacing(path) as half:
        pq.write_table(table, half)


WITHOUT = "delete it to continue without it, or read it with the version that wrote it"
"""The advice for a measurement file that is damaged or of another version."""


def read_table(path: Path, way_out: str | None = None) -> pd.DataFrame:
    """Read a table with Arrow types: null and NaN stay distinct, integers stay integers.

    Args:
        path: the file.
        way_out: as in `read_arrow`; None advises to rebuild the view.

    Raises:
        RunError: the file is missing, damaged, or of another schema version.
    """
    table = read_arrow(path, way_out or rebuild_words(path.parent))
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def rebuild_words(folder: Path) -> str:
    """The advice to rebuild the views of a run folder."""
    return f"rebuild it with digit-search board {quote(str(folder))} --rebuild"


_KNOWN = {field.name: field.type for schema in (LEADERBOARD, EPOCHS) for field in schema}

_LAST_TIME = 253_402_300_799_000_000
"""Microseconds to the end of the year 9999, the last year of Python's dates."""


def _check_columns(table: pa.Table) -> None:
    """Check the types of known columns and the range of times.

    Raises:
        ValueError: a column has another type, or a time is out of range.
    """
    for field in table.schema:
        if _KNOWN.get(field.name, field.type) != field.type:
            raise ValueError(f"column {field.name} is of type {field.type}")
        if pa.types.is_timestamp(field.type):
            ends = pc.min_max(table.column(field.name).cast(pa.int64())).as_py()
            if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] <= _LAST_TIME:
                raise ValueError(f"column {field.name} has a time out of range")


def read_arrow(path: Path, way_out: str) -> pa.Table:
    """Read a Parquet file of a run folder.

    Args:
        path: the file.
        way_out: advice in the message for a file that is damaged or of another schema version.

    Raises:
        RunError: the file is missing, damaged, or of another schema version.
    """
    try:
        # Given a path, Arrow opens the file twice, and a writer can replace it in between.
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read()
            table.validate(full=True)
            _check_columns(table)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except PermissionError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise RunError(f"{path} is damaged or no Parquet file ({reason_of(error)}); {way_out}") from None
    version = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema version {printable(version)}, this program reads {SCHEMA_VERSION}; {way_out}"
        )
    return table


_EPOCH = b"epoch"
"""Metadata key: the evaluated epoch."""


def of_epoch(table: pa.Table, epoch: int | None) -> pa.Table:
    """The same table with the evaluated epoch in its metadata; None adds nothing."""
    if epoch is None:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _EPOCH: str(epoch).encode()})


def epoch_of(table: pa.Table) -> int | None:
    """The evaluated epoch in a table's metadata; None if it is missing."""
    text = (table.schema.metadata or {}).get(_EPOCH, b"")
    return int(text) if text.isdigit() and len(text) < 10 else None


def check_epoch(path: Path, found: int | None, expected: int | None) -> None:
    """Check that a table has the expected epoch; a table without an epoch is accepted.

    Raises:
        RunError: it has another epoch.
    """
    if None not in (found, expected) and found != expected:
        raise RunError(
            f"{path} is of epoch {found}, but the best epoch in the record is {expected}; resume the run "
            "(digit-search resume) to write it again"
        )
