"""python -m search.predict: digits_core.predict, for the model of a run too (RUN, RUN:TRIAL, or a model folder)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.command import say
from digits_core.predict import Helpers
from digits_core.predict import build_parser as parser_for
from digits_core.predict import main as predict
from search.evaluate import evaluate_matches, exit_code, of_predictions, print_found
from search.models.source import find_source

if TYPE_CHECKING:
    from digits_core.data.coco import Table
    from digits_core.submission.inference import Detector, Predictions

MODEL = "a run, RUN:TRIAL, a model folder or an ensemble"


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    return parser_for(MODEL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return predict(argv, Helpers(find_model, evaluate, print_found, exit_code, MODEL))


def evaluate(title: str, found: "Predictions", table: "Table", detector: "Detector") -> dict[str, Any]:
    """Score predictions as `search.evaluate` does, and return the result as values for JSON."""
    return evaluate_matches(of_predictions(title, found, table, detector))


def find_model(name: Path) -> tuple[Path, str]:
    """The model folder of a run, of a trial, or the one named, and its words; says which it is.

    Raises:
        RunError: there is none.
    """
    source = find_source(str(name), "MODEL", ensembles=True)
    say(f"model: {source.words}", error=True)
    return source.folder, source.words


if __name__ == "__main__":
    raise SystemExit(main())
