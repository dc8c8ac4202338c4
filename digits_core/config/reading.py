"""Parameters as a user writes them: a TOML file for `--config`, and `--set NAME=VALUE`."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from digits_core.config.parameter import Flat, Scalar
from digits_core.config.stages import format_stages
from digits_core.config.train_config import parameter_named
from digits_core.errors import ConfigError, printable
from digits_core.files import read_text


def read_toml(path: Path) -> Flat:
    """Flat parameters of a TOML file; the names of tables are the parts of a flat name.

    Raises:
        ConfigError: no such file, invalid TOML, an unknown parameter or a wrong value.
    """
    try:
        tree = tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"--config {path}: cannot be read: {reason}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {path}: invalid TOML: {error}") from None
    flat: Flat = {}
    try:
        stages = _stages_of(tree.pop("stages")) if "stages" in tree else None
        for name, value in _flatten(tree, ""):
            flat[name] = parameter_named(name).check(value)
        if stages is not None:
            if "optim.stages" in flat:
                raise ConfigError("[[stages]] and optim.stages both set the stages; remove one of them")
            flat["optim.stages"] = stages
    except ConfigError as error:
        raise ConfigError(f"--config {path}: {error}") from None
    return flat


def _stages_of(tables: object) -> str:
    """The value of `optim.stages` for a TOML array of tables, each with `epochs` and the parameters of one stage."""
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) and "epochs" in table for table in tables):
        raise ConfigError("stages must be tables [[stages]], each with epochs (a number, or a share like '50%')")
    parsed = []
    for table in tables:
        parameters_of = {
            name: parameter_named(name).check(value) for name, value in _flatten(table, "") if name != "epochs"
        }
        for name, value in parameters_of.items():
            if isinstance(value, str):
                parameters_of[name] = ",".join(part.strip() for part in value.split(","))
        parsed.append((str(table["epochs"]), parameters_of))
    return format_stages(parsed)


def _flatten(tree: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def parse_assignment(text: str, flag: str = "--set") -> tuple[str, Scalar]:
    """Read and check one `--set NAME=VALUE`, or that of another flag.

    Raises:
        ConfigError: no `=`, an unknown parameter or a wrong value.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{flag} needs NAME=VALUE, like model.min_size=96, got '{printable(text)}'")
    return name.strip(), parameter_named(name.strip()).parse(value)
