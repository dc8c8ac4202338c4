"""The file of an ensemble's model folder: which models it has, how often each counts, and how they are fused.

The folder contains an ordinary model folder for each model, and config and classes of the ensemble.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from digits_core.errors import WeightsError, printable, reason_of
from digits_core.evaluation.fusion import MAX_MODELS, Fusion
from digits_core.files import ENSEMBLE_FILE, is_inside, read_text

MAX_COUNT = 1000
"""How often a model can be in an ensemble."""


@dataclass(frozen=True, slots=True)
class EnsembleFile:
    """The content of the file.

    Attributes:
        counts: how often each model is in the ensemble, by the name of its folder; at least two models.
        fusion: the parameters of the fusion.
    """

    counts: dict[str, int]
    fusion: Fusion

    def __post_init__(self) -> None:
        """Check the names and counts.

        Raises:
            ValueError: fewer than two models or too many, a name that is no plain folder name, or a wrong count.
        """
        if not 2 <= len(self.counts) <= MAX_MODELS:
            raise ValueError(f"an ensemble has 2 to {MAX_MODELS} models, not {len(self.counts)}")
        for name, count in self.counts.items():
            if not name or name.startswith(".") or Path(name).name != name or "\\" in name or "\0" in name:
                raise ValueError(f"'{name}' is no name of a folder in it")
            if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= MAX_COUNT:
                raise ValueError(f"the count of '{name}' must be a whole number from 1 to {MAX_COUNT}")


def write_ensemble(folder: Path, content: EnsembleFile) -> None:
    """Write the file into the folder of an ensemble."""
    members = [{"folder": name, "count": count} for name, count in content.counts.items()]
    text = json.dumps({"members": members, "fusion": asdict(content.fusion)}, indent=2)
    (folder / ENSEMBLE_FILE).write_text(text + "\n", encoding="utf-8")


def read_ensemble(folder: Path) -> EnsembleFile:
    """Read the file of an ensemble's folder.

    Raises:
        WeightsError: it is damaged, or names a folder outside.
    """
    path = folder / ENSEMBLE_FILE
    try:
        tree = json.loads(read_text(path))
        members = [(str(one["folder"]), one["count"]) for one in tree["members"]]
        if len({name for name, _ in members}) < len(members):
            raise ValueError("it names a folder twice; a model that counts twice has the count 2")
        fusion = Fusion(iou=float(tree["fusion"]["iou"]), floor=float(tree["fusion"]["floor"]))
        content = EnsembleFile(dict(members), fusion)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise WeightsError(f"{printable(str(path))} is damaged: {printable(reason_of(error))}") from None
    for name in content.counts:
        if not is_inside(folder / name, folder):
            raise WeightsError(f"{printable(str(path))}: {printable(name)} is a link to a place outside of the folder")
    return content
