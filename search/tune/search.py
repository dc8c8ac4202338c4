"""A search that is ready to run: its settings, its data, its open record and its storage."""

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
    """A search with its run folder, ready to run.

    Attributes:
        settings: the settings of the search.
        plan: the same, resolved.
        data: the opened data.
        events: the open record, including the events of earlier drivers.
        copier: copies the run folder to a remote storage, if there is one.
    """

    settings: SearchSettings
    plan: Plan
    data: DigitData
    events: EventWriter
    copier: Copier

    @property
    def storage(self) -> Storage:
        """The storage of the checkpoints."""
        return self.copier.storage

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.storage.folder

    @property
    def driver(self) -> str:
        """The number of this start of the search, which names its checkpoint folder."""
        return f"{self.record.num_drivers:03d}"

    @property
    def record(self) -> RunRecord:
        """The record of the run."""
        return self.events.record
