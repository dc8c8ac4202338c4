"""Writes a table as CSV, JSON, Parquet, Excel, Markdown or LaTeX."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from digits_core.errors import UsageError, did_you_mean, printable
from results.tables.parquet import check_target, replacing


def export_table(table: pd.DataFrame, form: str, path: Path) -> None:
    """Write a table in one of FORMATS, atomically.

    Args:
        table: for example from `read_leaderboards`.
        form: one of FORMATS.
        path: the file; its folder must exist.

    Raises:
        UsageError: the format is unknown, the folder does not exist, or a package is missing.
    """
    check_format(form)
    check_target(path, "-o ")
    with replacing(path) as half:
        if form in TEXT_FORMATS:
            half.write_text(TEXT_FORMATS[form](table), encoding="utf-8")
        else:
            BINARY_FORMATS[form](table, half)


def check_format(form: str) -> None:
    """Check that a format is known.

    Raises:
        UsageError: it is unknown.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {printable(form)}: unknown format{did_you_mean(form, FORMATS)}")


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table with times as ISO 8601 text in UTC, for formats without a time type."""
    out = table.copy()
    for name in out.columns:
        if "timestamp" in str(out[name].dtype):
            out[name] = [None if pd.isna(time) else pd.Timestamp(time).isoformat() for time in out[name]]
    return out


def csv_text(table: pd.DataFrame) -> str:
    """A table as comma-separated values, times in ISO 8601."""
    return str(_plain(table).to_csv(index=False))


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as values for JSON: times in ISO 8601, None for missing and for non-finite numbers."""
    return [
        {str(name): value_or_none(value) for name, value in row.items()} for row in _plain(table).to_dict("records")
    ]


def value_or_none(value: Any) -> Any:
    """The value; None if it is missing or a number that JSON does not have."""
    missing = value is None or pd.isna(value) or (isinstance(value, float) and not math.isfinite(value))
    return None if missing else value


def json_text(table: pd.DataFrame) -> str:
    """A table as a JSON array with one object per row."""
    return json.dumps(json_rows(table), indent=1, allow_nan=False) + "\n"


def _parquet(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)


def _xlsx(table: pd.DataFrame, path: Path) -> None:
    try:
        import openpyxl  # noqa: F401
    except ImportError:
        raise UsageError("--format xlsx needs the package openpyxl: pip install 'digit-search[xlsx]'") from None
    with path.open("wb") as out:
        _plain(table).to_excel(out, index=False, engine="openpyxl")


def _cells(table: pd.DataFrame, escape: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text, numbers rounded."""
    rows = [
        [escape(_cell(str(name), value)) for name, value in row.items()] for row in _plain(table).to_dict("records")
    ]
    return [escape(printable(str(name))) for name in table.columns], rows


def _cell(name: str, value: Any) -> str:
    """Three decimals; four significant digits for a parameter or a very small or large number."""
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, float):
        is_parameter = "." in name or name == "lr"
        fits = value == 0 or 0.001 <= abs(value) < 1e6
        return f"{value:.3f}" if fits and not is_parameter else f"{value:.4g}"
    return printable(str(value))


def md_text(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    header, rows = _cells(table, lambda text: text.replace("\\", "\\\\").replace("|", "\\|"))
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_text(table: pd.DataFrame) -> str:
    """A table as a LaTeX tabular."""
    header, rows = _cells(table, lambda text: "".join(_LATEX.get(sign, sign) for sign in text))
    lines = [f"\\begin{{tabular}}{{{'l' * len(header)}}}", r"\hline", " & ".join(header) + r" \\", r"\hline"]
    lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}

TEXT_FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "csv": csv_text,
    "json": json_text,
    "md": md_text,
    "latex": latex_text,
}

BINARY_FORMATS: dict[str, Callable[[pd.DataFrame, Path], None]] = {"parquet": _parquet, "xlsx": _xlsx}

FORMATS = (*TEXT_FORMATS, *BINARY_FORMATS)

FOR_PAPER = ("md", "latex")
"""Formats for people: they get few columns and rounded numbers."""

_ENDINGS = {f".{form}": form for form in FORMATS} | {".tex": "latex"}


def format_of(path: Path) -> str:
    """The format that the ending of a file's name means.

    Raises:
        UsageError: the name has another ending or none.
    """
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        what = f"does not know the ending '{ending}'" if ending else "needs an ending"
        raise UsageError(
            f"-o {printable(str(path))}: {printable(what)}; end the name with one of {', '.join(_ENDINGS)}, or give "
            "--format"
        )
    return _ENDINGS[ending]
