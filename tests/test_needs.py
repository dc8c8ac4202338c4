"""What tests need beyond Python: they say it and install nothing; only `make browser` installs, and only a browser."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

import browser
import needs

ROOT = Path(__file__).parents[1]

APT_GET = """#!/bin/sh
echo "$*" >> {log}
case "$*" in *install*) {install};; esac
"""

SUDO = """#!/bin/sh
echo "sudo $*" >> {log}
exec "$@"
"""

INSTALL = "install --yes -qq --no-install-recommends chromium fonts-liberation"

BROWSER = "#!/bin/sh\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of programs that a test puts into `.tools`; `.calls()` is what they were called with."""

    class Machine:
        tools = tmp_path / "tools"
        log = tmp_path / "log"

        def put(self, name, text):
            path = self.tools / name
            path.write_text(text.replace("{log}", shlex.quote(str(self.log))))
            path.chmod(0o755)

        def has_apt_get(self, install="true"):
            self.put("apt-get", APT_GET.replace("{install}", install))

        def calls(self):
            return self.log.read_text().splitlines() if self.log.exists() else []

    here = Machine()
    here.tools.mkdir()
    for name in ("env", "sh", "chmod", "true", "false"):
        (here.tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(here.tools))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    here.makes_browser = f"echo '#!/bin/sh' > '{here.tools}/chromium'; chmod 755 '{here.tools}/chromium'"
    return here


def test_browser_tests_without_a_browser_say_how_to_get_one_and_install_nothing(machine):
    machine.has_apt_get(machine.makes_browser)
    assert needs.missing_for("browser") == "browser tests need Chromium or Google Chrome: make browser"
    assert machine.calls() == []


@pytest.mark.parametrize("name", browser.NAMES)
def test_browser_tests_run_where_a_browser_is(name, machine):
    machine.put(name, BROWSER)
    assert needs.missing_for("browser") is None


def test_gpu_tests_without_a_gpu_say_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert needs.missing_for("gpu") == "gpu tests need a CUDA GPU and a torch built for CUDA"


@pytest.mark.parametrize("marker", needs.PACKAGES)
def test_tests_without_their_packages_name_them_and_how_to_get_them(marker, monkeypatch):
    monkeypatch.setattr(needs, "find_spec", lambda name: None)
    said = needs.missing_for(marker)
    assert all(package in said for package in needs.PACKAGES[marker])
    assert said.endswith(": make env")
    assert "\n" not in said


def test_make_browser_does_nothing_where_a_browser_is(machine, capfd):
    machine.has_apt_get()
    machine.put("chromium", BROWSER)
    assert browser.main() == 0
    assert machine.calls() == []
    assert capfd.readouterr() == ("", "")


def test_make_browser_installs_chromium_as_root_without_sudo(machine, capfd):
    machine.has_apt_get(machine.makes_browser)
    machine.put("sudo", SUDO)
    assert browser.main() == 0
    assert machine.calls() == ["update -qq", INSTALL]
    assert "sudo" not in capfd.readouterr().err


def test_make_browser_says_that_it_uses_sudo(machine, monkeypatch, capfd):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.has_apt_get(machine.makes_browser)
    machine.put("sudo", SUDO)
    assert browser.main() == 0
    assert [line for line in machine.calls() if line.startswith("sudo")] == [
        "sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq",
        "sudo env DEBIAN_FRONTEND=noninteractive apt-get " + INSTALL,
    ]
    assert "with sudo, which may ask for your password" in capfd.readouterr().err


def test_make_browser_without_root_and_sudo_says_what_to_run(machine, monkeypatch, capfd):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.has_apt_get(machine.makes_browser)
    assert browser.main() == 2
    assert machine.calls() == []
    assert "run as root: apt-get install chromium" in capfd.readouterr().err


def test_make_browser_on_another_system_says_what_to_install(machine, capfd):
    assert browser.main() == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "install Chromium or Google Chrome with its own package manager" in said
    assert "chromium or chromium-browser or google-chrome is on PATH" in said


@pytest.mark.parametrize("install", ["exit 100", "true"], ids=["apt-get fails", "apt-get brings no browser"])
def test_make_browser_that_brings_no_browser_ends_with_code_2(install, machine, capfd):
    machine.has_apt_get(install)
    assert browser.main() == 2
    assert "did not bring chromium or chromium-browser or google-chrome to PATH" in capfd.readouterr().err


def test_a_package_list_that_cannot_be_read_does_not_keep_the_browser_from_being_installed(machine):
    machine.put("apt-get", f'#!/bin/sh\ncase "$*" in *update*) exit 100;; esac\n{machine.makes_browser}\n')
    assert browser.main() == 0


def test_only_make_browser_calls_a_system_package_manager():
    """Everything tracked but the documents, which tell a person what to run."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = {
        name
        for name in tracked.split("\0")
        if name.endswith((".py", ".sh", "run", "Makefile", ".toml")) and "apt-get" in (ROOT / name).read_text()
    }
    assert named <= {"tests/browser.py", "tests/test_needs.py", "Makefile"}
