"""The documentation site: it builds without a warning, no link of it is dead, and what its pages name exists."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from digits_core.config.train_config import parameters
from search.command import VERBS
from spaces.catalogue import SPACES

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

COMMAND = re.compile(rf"(?:python -m ([\w.]+)|digit-search ({'|'.join(VERBS)}))\b")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")

FOREIGN_FLAGS = {
    "--logdir",  # tensorboard
    "--signal",  # sbatch
    "--requeue",  # sbatch
    "--port",  # mlflow server
    "--project",  # trackio show
    "--no-wait",  # ray job submit
    "--kills",  # tests/chaos/storm.py
    "--minutes",  # tests/chaos/fuzz.py
    "--ray",  # benchmarks/scaling.py
}
"""Flags of other tools, and of scripts that are no commands of ours."""

LOADING_LINKS = {"stylesheet", "preconnect", "dns-prefetch", "preload", "modulepreload", "icon", "manifest"}
"""What a <link> may be for a browser to fetch its address by itself."""

LOADING = {"src", "srcset", "poster"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    out = tmp_path_factory.mktemp("site") / "site"
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)],
        cwd=ROOT,
        env=os.environ | quiet,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search(r"WARNING|ERROR", said), said
    return out


class Page(HTMLParser):
    """What a page of HTML has (ids), points to (hrefs) and loads by itself."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.hrefs, self.loads = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if "href" in given:
            fetched = tag == "link" and set(given.get("rel", "").split()) & LOADING_LINKS
            (self.loads if fetched else self.hrefs).append(given["href"])
        self.loads += [given[name].split()[0] for name in LOADING & given.keys() if given[name]]


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def target_of(address, page, site):
    """The file that an address within the site points to."""
    path = unquote(urlsplit(address).path)
    if not path:
        return page
    target = site / path.lstrip("/") if path.startswith("/") else page.parent / path
    target = target.resolve()
    return target / "index.html" if target.is_dir() else target


def is_outside(address):
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


def test_every_page_is_built(site):
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page


def test_every_link_within_the_site_leads_somewhere(site, pages):
    dead = []
    for path, page in pages.items():
        for address in [*page.hrefs, *page.loads]:
            if is_outside(address):
                continue
            target = target_of(address, path, site)
            fragment = unquote(urlsplit(address).fragment)
            if not target.is_file():
                dead.append(f"{path.relative_to(site)}: {address}: no such file")
            elif fragment and target in pages and fragment not in pages[target].ids and fragment != "__":
                dead.append(f"{path.relative_to(site)}: {address}: no such place")
    assert not dead, "\n".join(dead)


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loaded = [
        f"{path.relative_to(site)}: {address}"
        for path, page in pages.items()
        for address in page.loads
        if is_outside(address) and urlsplit(address).scheme != "data"
    ]
    assert not loaded, "\n".join(loaded)


def test_no_style_loads_from_elsewhere(site):
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import\s+[\"'](https?:)?//", text), style


def test_links_to_other_sites_are_plain_addresses(pages):
    for path, page in pages.items():
        for address in page.hrefs:
            assert urlsplit(address).scheme in ("", "http", "https"), f"{path}: {address}"


def test_links_are_checked_for_dead_ones(tmp_path):
    """The walk itself finds what is dead."""
    (tmp_path / "a.html").write_text('<a href="b.html#there">x</a><a href="#gone">y</a><script src="http://cdn/x.js">')
    (tmp_path / "b.html").write_text('<h2 id="there">z</h2>')
    found = {path: Page(path.read_text()) for path in tmp_path.glob("*.html")}
    assert found[tmp_path / "b.html"].ids == {"there"}
    assert found[tmp_path / "a.html"].loads == ["http://cdn/x.js"]
    with pytest.raises(AssertionError, match="#gone: no such place"):
        test_every_link_within_the_site_leads_somewhere(tmp_path, found)
    with pytest.raises(AssertionError, match=r"cdn/x\.js"):
        test_nothing_is_loaded_from_elsewhere(tmp_path, found)


def help_of(parser):
    """The help of a parser and of its subcommands."""
    text = parser.format_help()
    for action in parser._actions:
        if isinstance(action.choices, dict):
            text += "".join(help_of(sub) for sub in action.choices.values())
    return text


def named_modules():
    return {module for page in PAGES for module in modules_in(page.read_text(encoding="utf-8"))}


def modules_in(text):
    """The modules of the commands in a text, which names them as `python -m MODULE` or `digit-search VERB`."""
    return [module or VERBS[verb].module for module, verb in COMMAND.findall(text)]


def parser_of(name):
    """The flags of `python -m NAME`; a package keeps its command in a module of that name."""
    module = import_module(name)
    return (import_module(f"{name}.command") if hasattr(module, "__path__") else module).build_parser()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_named_on_a_page_exist(page):
    for module in modules_in(page.read_text(encoding="utf-8")):
        assert importlib.util.find_spec(module) is not None, module
        assert parser_of(module) is not None, module


@pytest.fixture(scope="module")
def flags():
    """All flags of all commands that the pages name."""
    texts = [help_of(parser_of(module)) for module in sorted(named_modules())]
    return {flag for text in texts for flag in FLAG.findall(text)} | FOREIGN_FLAGS


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_flags_named_on_a_page_exist(page, flags):
    unknown = set(FLAG.findall(page.read_text(encoding="utf-8"))) - flags
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_flags_on_a_command_line_are_that_command_s(page):
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            found = modules_in(line.partition("#")[0])
            if not found:
                continue
            known = set(FLAG.findall(help_of(parser_of(found[0]))))
            assert set(FLAG.findall(line.partition("#")[0])) <= known, line


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_parameters_and_spaces_named_on_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for parameter in re.findall(r"--set\s+([a-z][\w.]+)=", text):
        assert parameter in parameters(), parameter
    for named in re.findall(r"--space\s+([a-z][\w,.]*)", text):
        for name in named.rstrip(".,").split(","):
            assert name.endswith(".py") or name in SPACES, name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_on_a_page_parses(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        compile(block, str(page), "exec")
