"""A record that a test builds event by event: no Ray, no files."""

from dataclasses import asdict

from digits_core.model.anchors import setting_digest
from results.record.run import RunRecord

TIME = "2026-01-31T12:00:00+00:00"


class History:
    """The events of a search and the record made from them; another driver may continue from the events."""

    def __init__(self, events=(), **run):
        self.record, self.events = RunRecord("told"), []
        for event in events:
            self.apply(event)
        self.tell("run", metric="val_map", **run)

    def apply(self, event):
        self.events.append(event)
        self.record.apply(event)

    def tell(self, kind, **values):
        self.apply({"n": len(self.events) + 1, "time": TIME, "kind": kind, **values})

    def add(self, name, role, found):
        """A new trial, and its end if it is screened out."""
        self.tell(
            "trial", trial_id=name, space="s", role=role, baseline=found.baseline, config=found.config.to_flat(),
            config_hash=setting_digest(found.config), seed=found.config.runtime.seed, params=found.params,
            coverage=None if found.coverage is None else asdict(found.coverage),
        )  # fmt: skip
        if found.screened is not None:
            self.tell("end", trial_id=name, status="screened", reason=found.screened)

    def read_again(self):
        """The record as another driver would read it from the events."""
        record = RunRecord("told")
        for event in self.events:
            record.apply(event)
        return record
