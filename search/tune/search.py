"""A search that is ready to run: what was asked, its data, its open record and its storage."""

from dataclasses import dataclass
from pathlib import Path

from digits_core.data.cache import DigitData
from results.record.log import EventWriter
from results.record.run import RunRecord
from search.cli.settings import SearchSettings
from search.policy.plan import Plan
from search.storage.run_copy import Copier
from search.storage.storage import Storage


@dataclass(frozen=True, slots=True)
class Search:
    """A search in its folder, ready to run.

    Attributes:
        settings: what was asked.
        plan: the same, resolved.
        data: opened.
        events: its open record, holding what an earlier driver did.
        copier: copies the run folder to the storage, where there is one.
    """

    settings: SearchSettings
    plan: Plan
    data: DigitData
    events: EventWriter
    copier: Copier

    @property
    def storage(self) -> Storage:
        """Where checkpoints lie."""
        return self.copier.storage

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.storage.folder

    @property
    def driver(self) -> str:
        """Which start of the search this is, as folders of checkpoints are named."""
        return f"{self.record.num_drivers:03d}"

    @property
    def record(self) -> RunRecord:
        """All that is known of the run."""
        return self.events.record
