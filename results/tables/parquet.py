"""Parquet and text files of a run folder: atomic writes, and reads that check the version."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from digits_core.errors import RunError, printable, reason_of
from results.record.schema import EPOCHS, LEADERBOARD, SCHEMA_VERSION


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when it is whole: readers see the old or the new one."""
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file, on disk before it takes its name."""
    with replacing(path) as half, half.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def damaged_copies(path: Path) -> Iterator[Path]:
    """What is kept beside a file of its damaged versions: NAME.damaged-1, NAME.damaged-2 and so on."""
    number = 1
    while (found := path.with_name(f"{path.name}.damaged-{number}")).exists():
        yield found
        number += 1


def free_name(path: Path) -> Path:
    """The name of the next damaged version of a file."""
    return path.with_name(f"{path.name}.damaged-{len(list(damaged_copies(path))) + 1}")


def keep_aside(path: Path) -> Path:
    """Copy a damaged file to a name of its own beside it, on disk before the call returns; nothing is overwritten."""
    content = path.read_bytes()
    while True:
        kept = free_name(path)
        with contextlib.suppress(FileExistsError), kept.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
            return kept


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file that a reader never sees half of."""
    with replacing(path) as half:
        pq.write_table(table, half)


WITHOUT = "delete it to go on without, or read it with the version that wrote it"
"""The way out where a file of measurements is damaged, or of another version."""


def read_table(path: Path, way_out: str | None = None) -> pd.DataFrame:
    """Read a table of ours with Arrow's own types: null stays apart from NaN, integers stay integers.

    Args:
        path: the file.
        way_out: as in `read_arrow`; None is that of a view of the events.

    Raises:
        RunError: no such file, no Parquet, or another schema version.
    """
    table = read_arrow(path, way_out or rebuild_words(path.parent))
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def rebuild_words(folder: Path) -> str:
    """How the views of a run folder are made anew."""
    return f"rebuild it with python -m results.leaderboard {quote(str(folder))} --rebuild"


_KNOWN = {field.name: field.type for schema in (LEADERBOARD, EPOCHS) for field in schema}

_LAST_TIME = 253_402_300_799_000_000
"""Microseconds to the end of the year 9999: Python's own dates end there."""


def _check_columns(table: pa.Table) -> None:
    """See that columns of ours are of their types, and times within the calendar.

    Raises:
        ValueError: one is not.
    """
    for field in table.schema:
        if _KNOWN.get(field.name, field.type) != field.type:
            raise ValueError(f"column {field.name} is of type {field.type}")
        if pa.types.is_timestamp(field.type):
            ends = pc.min_max(table.column(field.name).cast(pa.int64())).as_py()
            if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] <= _LAST_TIME:
                raise ValueError(f"column {field.name} holds a time out of the calendar")


def read_arrow(path: Path, way_out: str) -> pa.Table:
    """Read a Parquet file of ours.

    Args:
        path: the file.
        way_out: what to do about one that is damaged, or of another schema version.

    Raises:
        RunError: no such file, no Parquet, or another schema version.
    """
    try:
        # Opened once: by its path Arrow opens it twice, and a writer may put another in its place in between.
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
"""Key of a table's metadata: the epoch whose evaluation it holds."""


def of_epoch(table: pa.Table, epoch: int | None) -> pa.Table:
    """The same table, marked with the epoch whose evaluation it holds; None leaves it unmarked."""
    if epoch is None:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _EPOCH: str(epoch).encode()})


def epoch_of(table: pa.Table) -> int | None:
    """The epoch whose evaluation a table holds; None where it does not say."""
    text = (table.schema.metadata or {}).get(_EPOCH, b"")
    return int(text) if text.isdigit() and len(text) < 10 else None


def check_epoch(path: Path, found: int | None, expected: int | None) -> None:
    """See that a table is of the epoch it is shown with; one that does not say is trusted.

    Raises:
        RunError: it is of another epoch.
    """
    if None not in (found, expected) and found != expected:
        raise RunError(
            f"{path} holds epoch {found}, and the best epoch on record is {expected}; go on with the run "
            "(python -m search.run --resume), which writes it again"
        )
