"""A real headless Chromium: the system's own, installed where that can be done."""

import functools
import os
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@functools.cache
def browser_path():
    """The system's browser, installed with apt as root where there is none; else why there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(command, env=environment, capture_output=True, check=False, timeout=600)
        found = shutil.which("chromium")
    return found


@pytest.fixture(scope="session")
def chromium():
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium on this machine, and none can be installed (that takes root and apt)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a file in a window of its own; `.faults` and `.requests` are what it complained of and asked for."""
    contexts = []

    def open_file(path, *, width=1280, height=900, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.faults, page.requests = [], []
        page.on("console", lambda one: page.faults.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("request", lambda one: page.requests.append(one.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
