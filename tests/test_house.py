"""What holds for the whole house: walls, commands, documents, names."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from digits_core import predict, pretrain, to_onnx
from digits_core.config.train_config import parameters
from digits_core.data import command as data
from results import compare, export, leaderboard, plots, repair, report, runs
from results.record.schema import EPOCHS, LEADERBOARD
from results.views.leaderboard import SHOWN
from search import command, ensemble, evaluate, replay, retrain, run
from search.defaults import METRICS, SAMPLERS, SCHEDULERS

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "search.run": run,
    "results.leaderboard": leaderboard,
    "results.compare": compare,
    "results.export": export,
    "results.plots": plots,
    "results.report": report,
    "results.runs": runs,
    "results.repair": repair,
    "digits_core.data": data,
    "digits_core.pretrain": pretrain,
    "digits_core.predict": predict,
    "digits_core.to_onnx": to_onnx,
    "search.replay": replay,
    "search.evaluate": evaluate,
    "search.retrain": retrain,
    "search.ensemble": ensemble,
}

WRAPPED = {"digits_core.predict": "search.predict"}
"""Modules of `python -m` whose verb is another module, which adds to it."""


def loaded_by(code):
    """The top-level packages that a fresh process has loaded after running code."""
    code += "; import sys; print(' '.join(sorted(name for name in sys.modules if '.' not in name)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_import_contracts_hold():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


def test_packages_import_nothing_by_themselves():
    bare = loaded_by("pass")
    assert loaded_by("import digits_core, spaces, results, search") - bare - set(sys.stdlib_module_names) == {
        "digits_core",
        "spaces",
        "results",
        "search",
    }


def test_results_and_spaces_load_neither_torch_nor_ray():
    loaded = loaded_by("import results.compare, results.leaderboard, results.export, results.plots, spaces.catalogue")
    assert not loaded & {"torch", "torchvision", "ray"}


def test_core_loads_neither_ray_nor_optuna():
    core = "import digits_core.training.train, digits_core.evaluation.sweep, digits_core.data.command"
    assert not loaded_by(core) & {"ray", "optuna"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_for_itself_and_every_flag(name, capsys):
    with pytest.raises(SystemExit) as caught:
        COMMANDS[name].main(["--help"])
    assert caught.value.code == 0
    assert f"python -m {name}" in capsys.readouterr().out
    parser = COMMANDS[name].build_parser()
    assert parser.description
    verb = next(
        verb for verb, one in command.VERBS.items() if one.module.removesuffix(".command") in (name, WRAPPED.get(name))
    )
    assert re.search(rf"^ *(example: )?digit-search {verb}\b", parser.epilog or "", re.MULTILINE)
    for action in parser._actions:
        assert action.help or action.choices, action


def test_the_reference_page_is_what_the_code_says():
    source = (ROOT / "docs" / "make_reference.py").read_text()
    scope = {"__file__": str(ROOT / "docs" / "make_reference.py"), "__name__": "make_reference"}
    exec(compile(source, "make_reference.py", "exec"), scope)
    written = (ROOT / "docs" / "reference.md").read_text()
    assert scope["reference"]() == written, "run: python docs/make_reference.py"
    for verb, one in command.VERBS.items():
        assert one.flag or f"### digit-search {verb}\n" in written


def test_commands_named_in_documents_exist():
    pages = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / one for one in ("README.md", "CONTRIBUTING.md"))]
    for page in pages:
        code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", page.read_text(), re.DOTALL)
        for name in re.findall(r"digit-search ([a-z]+)", "\n".join(map("".join, code))):
            assert name in command.VERBS, f"{page.name} names digit-search {name}"
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for module in re.findall(r"python -m ([\w.]+)", (ROOT / document).read_text()):
            assert module in COMMANDS, f"{document} names {module}"


def test_flags_named_in_the_readme_exist():
    flags = {flag for module in COMMANDS.values() for flag in re.findall(r"--[a-z-]+", _help(module.build_parser()))}
    flags |= {"--help", "--logdir"}  # TensorBoard's
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "README.md").read_text()))
    assert named <= flags


def _help(parser):
    text = parser.format_help()
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            text += "".join(sub.format_help() for sub in action.choices.values())
    return text


def test_search_flags_are_no_parameters_but_for_three():
    leaves = {name.rpartition(".")[2] for name in parameters()}
    flags = {action.dest for action in run.build_parser()._actions}
    assert flags & leaves == {"epochs", "images_per_epoch", "seed"}


def test_names_agree_between_rooms():
    assert set(SHOWN) == set(METRICS)
    assert set(METRICS) <= set(LEADERBOARD.names)
    assert set(METRICS) <= set(EPOCHS.names)
    actions = {action.dest: action for action in run.build_parser()._actions}
    assert tuple(actions["sampler"].choices) == SAMPLERS
    assert tuple(actions["scheduler"].choices) == SCHEDULERS
    assert all(name in actions["metric"].help for name in METRICS)


def test_the_lock_names_versions_and_hashes_and_no_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    for line in re.findall(r"^[a-z0-9].*$", lock, re.MULTILINE):
        assert re.match(r"[\w.-]+==\S+( ;.*)? \\$", line), line
    assert {"torch", "torchvision", "ray"} <= set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))


def test_make_without_the_venv_module_is_one_sentence(tmp_path):
    import shutil

    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "bash", "make", "grep", "sed", "expand", "test", "touch"):
        if shutil.which(tool):
            (tools / tool).symlink_to(shutil.which(tool))
    fake = tools / "python3"
    fake.write_text(f'#!/bin/sh\ncase "$2" in *venv*) exit 1;; esac\nexec {shlex.quote(sys.executable)} "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["make", "env"], cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Python's venv module is missing; install it (on Debian and Ubuntu: apt install python3-venv)" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_table_of_what_a_stranger_could_ask_for_names_every_setting():
    import dataclasses

    from search.cli.settings import SearchSettings

    page = (ROOT / "docs" / "recovery.md").read_text()
    table = page[page.index("| in `settings` of run.json") : page.index("| elsewhere in a run folder")]
    named = set(re.findall(r"`(\w+)[`.]", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert {one.name for one in dataclasses.fields(SearchSettings)} <= named


def test_only_one_function_and_one_console_print():
    import ast

    makers = {}
    for package in ("digits_core", "results", "search", "spaces"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("Console", "print")
                ):
                    makers.setdefault(f"{package}/{path.name}", set()).add(node.func.id)
    # Lines of JSON for the process that started them are not for people.
    children = {f"search/{name}.py": {"print"} for name in ("cost", "probe", "sharing")}
    assert makers == {"digits_core/command.py": {"print"}, **children}


def test_nothing_phones_home():
    from search.tune.cluster import WORKER_ENVIRONMENT

    assert WORKER_ENVIRONMENT["RAY_USAGE_STATS_ENABLED"] == "0"
    assert WORKER_ENVIRONMENT["NO_ALBUMENTATIONS_UPDATE"] == "1"
    code = (
        "import os, socket; os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "def refuse(*_, **__): raise SystemExit('asked the network')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "from digits_core.data.drawn import draw_number; draw_number(1, 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name, capsys):
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name].build_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"digit-search \d\S+ \(Python 3\.\d+\.\d+, ray 2\.\S+ torch .*\)\n", capsys.readouterr().out)


def test_the_map_names_every_room_and_no_other():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`([a-z_]+)/`", text.partition("| package |")[2].partition("\n\n")[0]))
    there = {
        path.parent.name
        for package in ("search", "results", "digits_core")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert named == there
    for path in ROOT.glob("*/*/__init__.py"):
        if path.parts[-3] in ("search", "results", "digits_core"):
            assert 2 <= len(path.read_text().split('"""')[1].splitlines()) <= 6, f"{path} says what its room owns"
