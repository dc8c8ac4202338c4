"""The texts of flags as plain values."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from digits_core.config.parameter import Flat
from digits_core.config.reading import parse_assignment, read_toml
from digits_core.data.remote import SCHEMES, is_address, open_place
from digits_core.data.source import DRAWN, DataSource
from digits_core.errors import UsageError, did_you_mean, printable
from results.record.events import is_name
from results.record.schema import AIMS
from search.defaults import GAIN, METRICS

_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([KMGT]?)B?", re.IGNORECASE)


def read_metric(text: str) -> tuple[str, str]:
    """The metric and the further aims of `--metric METRIC[,AIM]`.

    Raises:
        UsageError: an unknown or repeated name.
    """
    metric, *aims = (part.strip() for part in text.split(","))
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS) or f"; it is one of {', '.join(METRICS)}"
        raise UsageError(f"--metric {printable(text)}: begins with the metric to maximise{hint}")
    for aim in aims:
        if aim not in AIMS or aims.count(aim) > 1:
            raise UsageError(
                f"--metric {printable(text)}: after {metric} come costs to make small, each once: {', '.join(AIMS)}"
            )
    return metric, ",".join(aims)


def run_name(name: str | None, space: str) -> str:
    """The name of the run folder: the given one, or made from the space and the time.

    Raises:
        UsageError: the name contains other characters than letters, digits, dots, dashes and underscores.
    """
    if name is None:
        stem = "-".join(Path(item.strip()).stem for item in space.split(","))
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', stem)}-{datetime.now():%Y%m%d-%H%M%S}"
    if not is_name(name):
        raise UsageError(
            f"--name {printable(repr(name))}: a run's name is letters, digits, '.', '-' and '_', and starts with a "
            "letter or digit"
        )
    return name


def parse_duration(text: str) -> float:
    """Seconds of `30m`, `2h`, `1h30m` or `45s`.

    Raises:
        UsageError: the text has another form, or is zero.
    """
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not total:
        raise UsageError(f"--time-budget takes a time like 30m, 2h, 1h30m or 45s, got '{printable(text)}'")
    return float(total)


def parse_size(text: str) -> int:
    """Bytes of `20G`, `500M` or `1.5T`.

    Raises:
        UsageError: the text has another form, or is zero.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else round(float(match[1]) * 1000 ** " KMGT".index((match[2] or " ").upper()))
    if not size:
        raise UsageError(f"--disk takes a size like 20G, 500M or 1.5T, got '{printable(text)}'")
    return size


def read_parameters(assignments: list[str], config: str | None) -> tuple[Flat, Flat]:
    """The parameters of `--set` and of `--config`.

    Raises:
        ConfigError: an unknown parameter, an invalid value, or a file that cannot be read.
    """
    return dict(parse_assignment(text) for text in assignments), {} if config is None else read_toml(Path(config))


def _refuse_one_slash(flag: str, text: str) -> None:
    if re.match(rf"({'|'.join(SCHEMES)}):/?(?!/)", text):
        raise UsageError(f"{flag} {printable(text)}: an address has two slashes after the colon, as s3://bucket/folder")


def storage_address(text: str) -> str:
    """The value of `--storage`: an address, or a folder as an absolute path, so that workers find it.

    Raises:
        UsageError: the address has another form.
    """
    _refuse_one_slash("--storage", text)
    if is_address(text):
        open_place(text, "--storage")
        place, mark, options = text.partition("?")
        return place.rstrip("/") + mark + options
    return str(Path(text).expanduser().absolute())


def data_source(folder: str, **names: Any) -> DataSource:
    """The data of `--data`: the folder as an address, or as an absolute path, so that workers find it."""
    _refuse_one_slash("--data", folder)
    if folder != DRAWN and not is_address(folder):
        folder = str(Path(folder).expanduser().absolute())
    return DataSource(folder=folder, **names)


def read_beliefs(assignments: Sequence[str]) -> Flat:
    """The values of `--believe`.

    Raises:
        ConfigError: an unknown parameter or a value that is not allowed.
        UsageError: a parameter is given twice.
    """
    pairs = [parse_assignment(text, "--believe") for text in assignments]
    twice = next((name for name, _ in pairs if [one for one, _ in pairs].count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--believe {twice}: is given twice; give one value for each parameter")
    return dict(pairs)


def read_until(text: str | None) -> tuple[bool, float]:
    """Whether `--until` ends a settled search, and the gain that it is about.

    Raises:
        UsageError: the text has another form.
    """
    kind, _, gain = (text or "trials").partition(":")
    try:
        value = float(gain) if gain else GAIN
    except ValueError:
        value = 0.0
    if kind not in ("trials", "settled") or not 0 < value < 1 or (gain and kind == "trials"):
        raise UsageError(
            f"--until {printable(text or '')}: takes trials, settled or settled:GAIN, where GAIN is an increase of the "
            "metric between 0 and 1, such as 0.005"
        )
    return kind == "settled", value
