"""What a user wrote about a run: a note in note.txt of the run folder, a line of text, and tags in tags.txt."""

from pathlib import Path

from digits_core.errors import UsageError, did_you_mean, printable
from digits_core.files import read_whole
from results.record.folder import refuse_links
from results.tables.parquet import write_text

NOTE_FILE, TAGS_FILE = "note.txt", "tags.txt"

MOST_LETTERS = 500
"""Longest note."""

TAG_LETTERS, MOST_TAGS = 40, 20
"""Longest tag, and most tags of a run."""

_MOST_BYTES = 64 * 1024


def read_note(folder: Path) -> str | None:
    """The note of a run in one printable line; None if it has none or the file cannot be read."""
    return printable(_one_line(_read(folder / NOTE_FILE))[:MOST_LETTERS]) or None


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
    _store(folder / NOTE_FILE, line)


def read_tags(folder: Path) -> list[str]:
    """The tags of a run in the order in which they were given; empty if it has none or the file cannot be read."""
    tags = [printable(tag[:TAG_LETTERS]) for tag in _read(folder / TAGS_FILE).split()]
    return list(dict.fromkeys(tags))[:MOST_TAGS]


def add_tag(folder: Path, tag: str) -> list[str]:
    """Give a run a tag, and return all its tags; a run that has the tag is not changed.

    Raises:
        UsageError: the tag is not one word, or too long, or the run has too many tags.
        RunError: the run folder has a link to a place outside.
    """
    if not tag or tag.split() != [tag] or printable(tag) != tag or "," in tag:
        raise UsageError(f"--tag {printable(tag)!r}: a tag is one word without spaces and commas")
    if len(tag) > TAG_LETTERS:
        raise UsageError(f"--tag: at most {TAG_LETTERS} characters, this tag has {len(tag)}")
    tags = read_tags(folder)
    if tag in tags:
        return tags
    if len(tags) >= MOST_TAGS:
        raise UsageError(f"--tag {tag}: {printable(str(folder))} has {MOST_TAGS} tags already; remove one with --untag")
    refuse_links(folder)
    _store(folder / TAGS_FILE, "\n".join([*tags, tag]))
    return [*tags, tag]


def remove_tag(folder: Path, tag: str) -> list[str]:
    """Take a tag from a run, and return the others.

    Raises:
        UsageError: the run does not have the tag.
        RunError: the run folder has a link to a place outside.
    """
    tags = read_tags(folder)
    if tag not in tags:
        raise UsageError(
            f"--untag {printable(tag)}: {printable(str(folder))} does not have this tag{did_you_mean(tag, tags)}"
        )
    refuse_links(folder)
    left = [one for one in tags if one != tag]
    _store(folder / TAGS_FILE, "\n".join(left))
    return left


def _read(path: Path) -> str:
    try:
        return read_whole(path, _MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _store(path: Path, text: str) -> None:
    """Write a small file atomically; an empty text deletes it."""
    if text:
        write_text(path, text + "\n")
    else:
        path.unlink(missing_ok=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
