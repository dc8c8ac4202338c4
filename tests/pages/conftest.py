"""A real headless Chromium: the one that this system has."""

import pytest

from browser import find_browser


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a file or an address in its own window; `.faults` and `.requests`: what it complained of and asked for."""
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
        page.goto(path if isinstance(path, str) else path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
