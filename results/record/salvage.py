"""Recovers a damaged record: keeps all complete events in order and describes the lost ones."""

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from results.record.events import MAX_LOST_DRIVERS, Event, check_event
from results.record.run import RunRecord
from results.record.starts import start_anew

_BEGIN = re.compile(rb'\{"n":')
"""The begin of each line."""

_KIND = re.compile(rb'"kind":\s*"([a-z]{1,20})"')
_TRIAL = re.compile(rb'"trial_id":\s*"([A-Za-z0-9][A-Za-z0-9._-]{0,99})"')
_EPOCH = re.compile(rb'"epoch":\s*(\d{1,7})\b')
_NUMBER = re.compile(rb'"n":\s*(\d{1,15})\b')

FEW = 3
"""Most consecutive events that can be missing without damaged bytes in their place, as after manual edits."""

MISPLACED = "not in its place"

_MARKS = {
    "trial": b'"space":',
    "report": b'"early_stopped":',
    "end": b'"status":',
    "fault": b'"fault":',
    "run": b'"metric":',
}
"""Text that occurs in one kind of event only, for events whose kind cannot be read."""

STRAY = "stray"
"""The kind of bytes that were not an event."""

MIN_EVENT_BYTES, MAX_EVENT_BYTES = 60, 2**20

MAX_LISTED = 1000
"""Most lost pieces that the `repaired` event lists."""

_WORDS = {
    "run": "a start of the search",
    "trial": "the configuration of trial {trial_id}",
    "start": "a start of trial {trial_id}",
    "report": "the report of trial {trial_id}, epoch {epoch}",
    "checkpoint": "the checkpoint of trial {trial_id}, epoch {epoch}",
    "kept": "whether the model of trial {trial_id} is kept",
    "fault": "a fault of trial {trial_id}",
    "longer": "the extension of trial {trial_id} to more epochs",
    "claim": "the scores of retraining {trial_id}",
    "end": "the end of trial {trial_id}",
    "repaired": "the report of an earlier repair",
    STRAY: "bytes that are not an event",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the file.

    Attributes:
        line: line number, from 1.
        start, end: offsets of its first byte and after its last byte.
        event: its event; None if it is not a complete event.
        fault: why it is not an event, or why it is dropped.
        seems: `kind`, `trial_id`, `epoch` and `n` of a dropped piece, as far as they can be read.
    """

    line: int
    start: int
    end: int
    event: Event | None
    fault: str = ""
    seems: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole_event(self) -> Event:
        """The event of a piece that has one."""
        assert self.event is not None
        return self.event

    @property
    def number(self) -> int:
        """The number of its event."""
        return int(self.whole_event["n"])

    @property
    def time(self) -> datetime:
        """The time of its event."""
        return datetime.fromisoformat(self.whole_event["time"])

    @property
    def kind(self) -> str | None:
        """The kind of a dropped event, if it can be read."""
        return self.seems.get("kind")

    @property
    def words(self) -> str:
        """A description of a dropped event."""
        known = {"trial_id": "?", "epoch": "?", **self.seems}
        if self.kind in _WORDS:
            return _WORDS[self.kind].format(**known)
        return "an event" + (f" of trial {known['trial_id']}" if "trial_id" in self.seems else "")

    def dropped(self, fault: str) -> "Piece":
        """The same piece, dropped because of `fault`."""
        event = self.event or {}
        seems: dict[str, Any] = {name: event[name] for name in ("kind", "trial_id", "epoch", "n") if name in event}
        return Piece(self.line, self.start, self.end, None, fault, seems)


@dataclass(frozen=True, slots=True)
class Salvage:
    """The kept and lost parts of a damaged record.

    Attributes:
        events: the kept events in order, renumbered.
        lost: the dropped pieces.
        missing: number of events that are not in the file, according to the numbers of the others.
        renumbered: whether the number of a kept event has changed.
        restored: reconstructed starts of the search; they are also in `events`.
        cut: the last line if it is incomplete, as after a crash; this is not damage.
        record: the record of the events.
    """

    events: list[Event]
    lost: list[Piece]
    missing: int
    renumbered: bool
    restored: list[Event]
    cut: Piece | None
    record: RunRecord

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.lost or self.missing or self.restored or self.renumbered)

    @property
    def gone(self) -> list[str]:
        """Trials whose events are all dropped because their configuration is lost."""
        named = {piece.seems["trial_id"] for piece in self.lost if "trial_id" in piece.seems}
        return sorted(named - self.record.trials.keys())

    def repaired(self, kept_as: str, time: str) -> Event:
        """The last event of the repaired record, which describes the lost events.

        Args:
            kept_as: name of the file with the damaged record.
            time: current time.
        """
        starts = sum(piece.kind in ("run", None) for piece in self.lost) + self.missing - len(self.restored)
        listed = [{"line": piece.line, "fault": piece.fault, **piece.seems} for piece in self.lost[:MAX_LISTED]]
        return {
            "n": len(self.events) + 1,
            "time": time,
            "kind": "repaired",
            "kept_as": kept_as,
            "num_lost": len(self.lost) + self.missing,
            "lost": listed,
            "trials": self.gone,
            # Possible starts count too, so that a later start uses a new name.
            "drivers": min(max(starts, 0), MAX_LOST_DRIVERS),
        }


def salvage(content: bytes, run: str, about: Mapping[str, Any]) -> Salvage:
    """Recover all complete events of a record that are in order.

    Args:
        content: bytes of `events.jsonl`.
        run: the name of the run.
        about: the content of `run.json`, to reconstruct lost starts of the search; may be empty.
    """
    pieces = list(_pieces(content))
    cut = pieces.pop() if _ends_cut(pieces, content) else None
    whole = _in_order([piece for piece in pieces if piece.event is not None])
    kept = {piece.start for piece in whole}
    lost = [one if one.event is None else one.dropped(MISPLACED) for one in pieces if one.start not in kept]
    missing = _missing(whole, lost)
    record, events, restored = RunRecord(run), list[Event](), list[Event]()
    for piece, event in _with_starts(whole, lost, about):
        event = {**event, "n": len(events) + 1}
        try:
            record.apply(event)
        except ValueError as error:
            lost.append(piece.dropped(str(error).split(" ", 2)[2]))  # without the new number
            continue
        events.append(event)
        if piece.event is None:
            restored.append(event)
    renumbered = any(piece.number != place for place, piece in enumerate(whole, start=1))
    return Salvage(events, sorted(lost, key=lambda one: one.start), missing, renumbered, restored, cut, record)


def _with_starts(whole: list[Piece], lost: list[Piece], about: Mapping[str, Any]) -> list[tuple[Piece, Event]]:
    """The complete events and the reconstructed starts of the search in order, each with its piece."""
    broken = [piece for piece in lost if piece.kind == "run" and piece.fault != MISPLACED][:MAX_LOST_DRIVERS]
    first = min([*whole, *broken], key=lambda piece: piece.start, default=None)
    if first is not None and first.event is not None and first.number > 1 and first.event["kind"] != "run":
        broken.append(Piece(first.line, first.start - 1, first.start, None))  # the first start is missing
    found = [(piece, piece.whole_event) for piece in whole]
    for piece in broken:
        before = [event for one, event in found if one.start < piece.start]
        after = [event for one, event in found if one.start > piece.start]
        made = start_anew(before, after, about) if before or after else None
        if made is not None:
            found.insert(len(before), (piece, made))
    return found


def _pieces(content: bytes) -> Iterator[Piece]:
    """The lines of a record; damaged lines are split where an event seems to begin."""
    start = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        event, fault = _decoded(line)
        if event is not None:
            yield Piece(number, start, start + len(line), event)
        elif line:
            yield from _parts(line, number, start, fault)
        start += len(line) + 1


def _decoded(line: bytes) -> tuple[Event | None, str]:
    """The event in some bytes, or why they are not an event."""
    try:
        return check_event(json.loads(line.decode("utf-8"))), ""
    except UnicodeDecodeError as error:
        return None, f"byte {error.start + 1} is not UTF-8"
    except json.JSONDecodeError as error:
        return None, f"not JSON from byte {error.pos + 1} on"
    except ValueError as error:
        return None, str(error)
    except RecursionError:
        return None, "nested too deeply"


def _parts(line: bytes, number: int, start: int, fault: str) -> Iterator[Piece]:
    """The complete events of a damaged line, and the pieces before, between and after them."""
    begins = [match.start() for match in _BEGIN.finditer(line)]

    def rest(low: int, high: int) -> Iterator[Piece]:
        places = [low, *(begin for begin in begins if low < begin < high), high]
        for one, other in pairwise(places):
            part = line[one:other]
            # Every event contains strings, so bytes without a quote are not an event.
            seems = _seems(part) if b'"' in part else {"kind": STRAY}
            yield Piece(number, start + one, start + other, None, fault, seems)

    at = 0
    for begin in begins:
        end = _end_of_event(line, begin) if begin >= at else None
        if end is not None:
            if begin > at:
                yield from rest(at, begin)
            yield Piece(number, start + begin, start + end, _decoded(line[begin:end])[0])
            at = end
    if at < len(line):
        yield from rest(at, len(line))


def _end_of_event(line: bytes, begin: int) -> int | None:
    """The offset after the complete event that begins at `begin`; None if there is none."""
    text = line[begin : begin + MAX_EVENT_BYTES].decode("utf-8", errors="surrogateescape")
    try:
        _, length = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    end = begin + len(text[:length].encode("utf-8", errors="surrogateescape"))
    return end if _decoded(line[begin:end])[0] is not None else None


def _seems(part: bytes) -> dict[str, Any]:
    """The values of a damaged event that can be read."""
    found: dict[str, Any] = {}
    for name, pattern, make in (
        ("kind", _KIND, str),
        ("trial_id", _TRIAL, str),
        ("epoch", _EPOCH, int),
        ("n", _NUMBER, int),
    ):
        match = pattern.search(part)
        if match is not None:
            found[name] = make(match[1].decode("ascii"))
    if found.get("kind") not in _WORDS:
        likely = next((kind for kind, mark in _MARKS.items() if mark in part), None)
        return {name: value for name, value in found.items() if name != "kind"} | ({"kind": likely} if likely else {})
    return found


def _ends_cut(pieces: list[Piece], content: bytes) -> bool:
    """Whether the last line is incomplete, as after a crash."""
    last = pieces[-1] if pieces else None
    return (
        last is not None and last.event is None and last.start == content.rfind(b"\n") + 1 and last.end == len(content)
    )


def _in_order(pieces: list[Piece]) -> list[Piece]:
    """The complete events that form one record: the longest sequence of increasing numbers."""
    once = _each_number_once(pieces)
    tails: list[int] = []  # the last number of the best sequence of each length
    places: list[int] = []
    before: list[int | None] = []
    for place, piece in enumerate(once):
        length = bisect_left(tails, piece.number)
        before.append(places[length - 1] if length else None)
        tails[length : length + 1] = [piece.number]
        places[length : length + 1] = [place]
    found = []
    at = places[-1] if places else None
    while at is not None:
        found.append(once[at])
        at = before[at]
    return _without_strangers(found[::-1])


def _each_number_once(pieces: list[Piece]) -> list[Piece]:
    """Of events with the same number, the one whose number or time fits best to its neighbours."""
    groups: dict[int, list[int]] = {}
    for place, piece in enumerate(pieces):
        groups.setdefault(piece.number, []).append(place)
    alone = sorted(places[0] for places in groups.values() if len(places) == 1)

    def misfit(place: int) -> tuple[int, float]:
        beside = [(one, pieces[place + one].number) for one in (-1, 1) if 0 <= place + one < len(pieces)]
        near = sum(number == pieces[place].number + one for one, number in beside)
        after = bisect_left(alone, place)
        around = [pieces[alone[one]].time for one in (after - 1, after) if 0 <= one < len(alone)]
        return -near, sum(abs((pieces[place].time - time).total_seconds()) for time in around)

    kept = {min(places, key=misfit) for places in groups.values()}
    return [piece for place, piece in enumerate(pieces) if place in kept]


def _without_strangers(pieces: list[Piece]) -> list[Piece]:
    """Remove single events whose number does not fit to the neighbours, unless damaged bytes explain the gap."""
    found = []
    for place, piece in enumerate(pieces):
        last = pieces[place - 1] if place else None
        after = pieces[place + 1] if place + 1 < len(pieces) else None
        alone = not _follows(last, piece) and (after is None or not _follows(piece, after))
        if not alone or len(pieces) == 1:
            found.append(piece)
    return found


def _follows(first: Piece | None, second: Piece) -> bool:
    """Whether `second` can follow `first`: the missing events fit into the bytes between, or are few."""
    if first is None:
        lost, room, later = second.number - 1, second.start, True
    else:
        lost, room, later = second.number - first.number - 1, second.start - first.end, first.time <= second.time
    return lost * MIN_EVENT_BYTES <= room or (lost <= FEW and later)


def _missing(whole: list[Piece], lost: list[Piece]) -> int:
    """Number of events that are not in the file, according to the numbers of the others."""
    numbers = {piece.number for piece in whole}
    holes = max(numbers, default=0) - len(numbers)
    found = [piece for piece in lost if piece.kind != STRAY and piece.seems.get("n") not in numbers]
    return max(holes - len(found), 0)
