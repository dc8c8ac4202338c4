"""The note of a run: a line of text that its user wrote, in note.txt of the run folder."""

from pathlib import Path

from digits_core.errors import UsageError, printable
from digits_core.files import read_whole
from results.record.folder import refuse_links
from results.tables.parquet import write_text

NOTE_FILE = "note.txt"

MOST_LETTERS = 500
"""Longest note."""

_MOST_BYTES = 64 * 1024


def read_note(folder: Path) -> str | None:
    """The note of a run in one printable line; None if it has none or the file cannot be read."""
    try:
        text = read_whole(folder / NOTE_FILE, _MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return None
    return printable(_one_line(text)[:MOST_LETTERS]) or None


def write_note(folder: Path, text: str) -> None:
    """Store the note of a run atomically; an empty text removes it.

    Raises:
        UsageError: the text is too long.
        RunError: the run folder has a link to a place outside.
    """
    line = _one_line(text)
    if len(line) > MOST_LETTERS:
        raise UsageError(f"--note: at most {MOST_LETTERS} characters, this note has {len(line)}")
    refuse_links(folder)
    if line:
        write_text(folder / NOTE_FILE, line + "\n")
    else:
        (folder / NOTE_FILE).unlink(missing_ok=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
