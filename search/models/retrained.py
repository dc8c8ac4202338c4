"""The result of a retraining, for people and as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from digits_core.terminal import open_console
from results.record.folder import MODELS
from search.models.folder import METRICS_FILE
from search.monitor.summary import this_program


@dataclass(frozen=True, slots=True)
class Retrained:
    """What a retraining did.

    Attributes:
        folder: the run folder.
        trial_id: the trial that was trained again.
        why: why it was chosen.
        changes: the parameters that differ from the trial's.
        names: of the models, in `models/` of the run.
    """

    folder: Path
    trial_id: str
    why: str
    changes: list[str]
    names: list[str]

    def document(self) -> dict[str, Any]:
        """It as values for JSON."""
        return {
            "run": str(self.folder),
            "trial_id": self.trial_id,
            "why": self.why,
            "changes": self.changes,
            "models": [
                {"name": name, "folder": str(self._model(name)), "scores": self._scores(name)} for name in self.names
            ],
        }

    def print(self) -> None:
        """Print the scores of the models and the next command."""
        console = open_console()
        for name in self.names:
            scores = self._scores(name)
            words = ", ".join(
                f"{key} {scores[key]['value']:.3f} [{scores[key]['low']:.3f}, {scores[key]['high']:.3f}]"
                for key in ("val_map", "val_number_accuracy")
                if key in scores
            )
            words += (
                ", at thresholds chosen on these images" if words else "no score, also trained on the validation images"
            )
            console.print(f"{name}: {words}", soft_wrap=True)
        model = quote(str(self._model(self.names[0])))
        console.print(f"next: {this_program()} predict {model} IMAGES -o predictions", soft_wrap=True)

    def _model(self, name: str) -> Path:
        return self.folder / MODELS / name

    def _scores(self, name: str) -> dict[str, dict[str, float]]:
        """The scores of a model with their intervals; empty if it trained on the validation images."""
        metrics = json.loads((self._model(name) / METRICS_FILE).read_text(encoding="utf-8"))
        return {
            key: {"value": value, "low": low, "high": high} for key, (value, low, high) in metrics["scores"].items()
        }
