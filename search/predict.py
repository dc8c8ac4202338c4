"""python -m search.predict: digits_core.predict, for the model of a run too (RUN, RUN:TRIAL, or a model folder)."""

from collections.abc import Sequence
from pathlib import Path

from digits_core.command import say
from digits_core.predict import build_parser
from digits_core.predict import main as predict
from search.models.source import find_source

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return predict(argv, find_model)


def find_model(name: Path) -> Path:
    """The model folder of a run, of a trial, or the one named; says which it is.

    Raises:
        RunError: there is none.
    """
    source = find_source(str(name), "MODEL")
    say(f"model: {source.words}", error=True)
    return source.folder


if __name__ == "__main__":
    raise SystemExit(main())
