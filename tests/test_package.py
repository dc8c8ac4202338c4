"""The wheel and the source distribution: what they hold, and that a wheel in an empty environment searches."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from results import read_leaderboard

ROOT = Path(__file__).parents[1]
PACKAGES = ("digits_core", "results", "search", "spaces")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^### digit-search (\w+)$", REFERENCE, re.MULTILINE)))

pytestmark = [pytest.mark.package, pytest.mark.timeout(1800)]


def source_files():
    """Paths of the checkout's files that git does not ignore, relative to its root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def package_files():
    return {name for name in source_files() if PurePosixPath(name).parts[0] in PACKAGES}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution of a clean copy of the checkout, and the wheel built from that."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in source_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    # Without isolation: the backend that this environment has, for an isolated one would be downloaded.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would be ignored" not in done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    [path] = built.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_four_packages_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if not PurePosixPath(name).parts[0].endswith(".dist-info")} == package_files()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.startswith("digits_core/weights/") and name.endswith(".safetensors") for name in names)
    assert {"results/page/template.html", "results/page/style.css", "results/page/page.js"} <= names


def test_the_source_distribution_holds_what_a_wheel_is_built_from_and_no_tests(built):
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name for one in archive if one.isfile() and (name := one.name.partition("/")[2])}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - made == package_files() | {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}


class Installed:
    """An environment with the wheel in it, and a folder outside the checkout to work in."""

    def __init__(self, folder, wheel):
        self.environment, self.work = folder / "env", folder / "work"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.environment)], check=True)
        install = ["-m", "installer", "--validate-record", "all", "--prefix", str(self.environment), str(wheel)]
        subprocess.run([sys.executable, *install], check=True)
        self.packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        # The dependencies come from the environment of the tests. Python does not read the .pth files of a folder
        # that a .pth file names, so its editable install of the checkout stays out.
        dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "dependencies.pth").write_text("".join(f"{one}\n" for one in sorted(dependencies)))

    def run(self, *arguments):
        python = self.environment / "bin" / "python"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [str(python), *arguments],
            cwd=self.work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel):
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


LOOK = """
import importlib, importlib.metadata, json, sys
found = [importlib.import_module(name).__file__ for name in {packages}]
found.append(str(importlib.metadata.distribution("digit-search").locate_file("")))
print(json.dumps([found, sys.path]))
"""


def test_imports_come_from_the_wheel(installed):
    found, searched = json.loads(installed.run("-c", LOOK.format(packages=PACKAGES)))
    assert [path for path in found if not Path(path).is_relative_to(installed.packages)] == []
    assert str(ROOT) not in searched


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_in_an_installed_environment(command, installed):
    assert installed.run("-m", "search.command", command, "--help").startswith(f"usage: digit-search {command}")


def test_an_installed_wheel_searches_and_reports(installed):
    installed.run("-m", "digits_core.data", "draw", "--train", "8", "--valid", "4", "-o", "data")
    installed.run(
        "-m", "search.run", "--space", "thresholds", "--data", "data", "--epochs", "1", "--slots", "1", "--name", "tiny"
    )
    board = read_leaderboard(installed.work / "runs" / "tiny")
    assert list(board["status"]) == ["finished"]
    assert "t0000" in installed.run("-m", "results.leaderboard", "runs/tiny")
    installed.run("-m", "results.report", "runs/tiny")
    page = (installed.work / "runs" / "tiny" / "report.html").read_text(encoding="utf-8")
    for name in ("style.css", "page.js"):
        assert (ROOT / "results" / "page" / name).read_text(encoding="utf-8").strip() in page
