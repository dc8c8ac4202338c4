"""The browser of the tests that drive one: finds it, and installs it as a command (make browser)."""

import os
import shlex
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""Programs that the tests can drive, the first found on PATH is taken."""


def find_browser() -> str | None:
    """The path of an installed browser; None where there is none. Installs nothing."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def say(sentence: str) -> None:
    sys.stderr.write(f"make browser: {sentence}\n")


def main() -> int:
    """Install Chromium with apt-get where no browser is found; returns the exit code."""
    if find_browser():
        return 0
    if not shutil.which("apt-get"):
        say(
            "this system has no apt-get; install Chromium or Google Chrome with its own package manager "
            f"(for example dnf install chromium, or pacman -S chromium), so that {' or '.join(NAMES)} is on PATH"
        )
        return 2
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            say("installing Chromium needs root, and there is no sudo; run as root: apt-get install chromium")
            return 2
        command.insert(0, "sudo")
        say("installing Chromium with sudo, which may ask for your password")
    # Without the recommended packages, which bring services such as a printer's; but a page needs a font.
    install = [*command, "install", "--yes", "-qq", "--no-install-recommends", "chromium", "fonts-liberation"]
    say(f"running {shlex.join(install)}")
    # A fresh machine has no lists of packages. Where one of several cannot be read, Chromium may be in another.
    subprocess.run([*command, "update", "-qq"], stdout=subprocess.DEVNULL, check=False)
    if subprocess.run(install, stdout=subprocess.DEVNULL, check=False).returncode != 0 or not find_browser():
        say(f"{shlex.join(install)} did not bring {' or '.join(NAMES)} to PATH; its own words are above")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
