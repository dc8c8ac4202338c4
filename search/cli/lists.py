"""Prints the spaces and the parameters that a search can name."""

from digits_core.command import say, say_json


def list_spaces(*, as_json: bool) -> int:
    """Print the spaces of `--space`; returns 0."""
    from spaces.catalogue import SPACES

    if as_json:
        spaces = [
            {
                "space": space.name,
                "summary": space.summary,
                "comparison": space.comparison,
                "varies": sorted(space.fields()),
                "baselines": {one.name: dict(one.overrides) for one in space.baselines},
            }
            for space in SPACES.values()
        ]
        say_json({"spaces": spaces})
        return 0
    for space in SPACES.values():
        say(f"{space.name:15} {space.summary}" + (" (a comparison)" if space.comparison else ""))
        say(f"{'':15}   varies {', '.join(sorted(space.fields()))}")
        if space.baselines:
            say(f"{'':15}   baselines: default; {'; '.join(baseline.name for baseline in space.baselines)}")
    return 0


def list_parameters(*, as_json: bool) -> int:
    """Print the parameters of `--set`; returns 0."""
    from digits_core.config.train_config import parameters

    if as_json:
        found = [
            {"parameter": one.name, "default": one.default, "takes": one.limits, "meaning": one.help}
            for one in parameters().values()
        ]
        say_json({"parameters": found})
        return 0
    for parameter in parameters().values():
        say(f"{parameter.name}  (default {parameter.default}; {parameter.limits})")
        say(f"    {parameter.help}")
    return 0
