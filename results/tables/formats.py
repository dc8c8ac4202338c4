"""Writes a table as CSV, JSON, Parquet, Excel, Markdown or LaTeX."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from digits_core.errors import UsageError, did_you_mean, printable
from results.tables.parquet import replacing


def export_table(table: pd.DataFrame, form: str, path: Path) -> None:
    """Write a table in one of FORMATS, atomically.

    Args:
        table: for example from `read_leaderboards`.
        form: one of FORMATS.
        path: the file; its folder must exist.

    Raises:
        UsageError: the format is unknown, the folder does not exist, or a package is missing.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {printable(form)}: unknown format{did_you_mean(form, FORMATS)}")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder; name a file" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(f"-o {printable(str(path))}: {what}")
    with replacing(path) as half:
        FORMATS[form](table, half)


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


def _csv(table: pd.DataFrame, path: Path) -> None:
    path.write_text(csv_text(table), encoding="utf-8")


def _json(table: pd.DataFrame, path: Path) -> None:
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in _plain(table).to_dict("records")
    ]
    path.write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")


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
    """Header and rows as text, without JSON columns; two decimals for scores, three for scores with an interval."""
    shown = _plain(table).drop(columns=["config", "model"], errors="ignore").dropna(axis="columns", how="all")
    rows = [
        [escape(_cell(value, precise=_has_interval(str(name), row))) for name, value in row.items()]
        for row in shown.to_dict("records")
    ]
    return [escape(printable(str(name))) for name in shown.columns], rows


def _has_interval(name: str, row: Mapping[Any, Any]) -> bool:
    """Whether a cell is a score with an interval, or an end of an interval."""
    low = row.get(f"{name.removesuffix('_low').removesuffix('_high')}_low")
    return low is not None and not pd.isna(low)


def _cell(value: Any, *, precise: bool = False) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float) and precise:
        return f"{value:.3f}"
    if isinstance(value, float):
        return f"{value:.2f}" if 0.01 <= abs(value) < 1000 else f"{value:.3g}"
    return printable(str(value))


def _md(table: pd.DataFrame, path: Path) -> None:
    header, rows = _cells(table, lambda text: text.replace("\\", "\\\\").replace("|", "\\|"))
    lines = [header, ["---"] * len(header), *rows]
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


def _latex(table: pd.DataFrame, path: Path) -> None:
    header, rows = _cells(table, lambda text: "".join(_LATEX.get(sign, sign) for sign in text))
    lines = [f"\\begin{{tabular}}{{{'l' * len(header)}}}", r"\hline", " & ".join(header) + r" \\", r"\hline"]
    lines += [" & ".join(row) + r" \\" for row in rows]
    path.write_text("\n".join([*lines, r"\hline", r"\end{tabular}", ""]), encoding="utf-8")


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}

FORMATS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": _csv,
    "json": _json,
    "md": _md,
    "latex": _latex,
    "parquet": _parquet,
    "xlsx": _xlsx,
}
