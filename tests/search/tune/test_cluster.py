"""Everybody who has Ray's token can run code: its file is private from its creation on."""

import os
import stat

import pytest

from search.tune import token as token_module
from search.tune.cluster import prepare_environment


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is as before when the test ends
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0o022)
    yield tmp_path
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_that_a_search_makes_is_readable_by_its_owner_alone(home):
    assert prepare_environment(joins=False) is None
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert mode(token.parent) == 0o700
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]
    text = token.read_text()
    assert len(text) == 64
    assert int(text, 16) > 0
    assert prepare_environment(joins=False) is None
    assert token.read_text() == text


def test_ray_takes_the_token_that_was_made_and_writes_none_itself(home):
    import subprocess
    import sys

    code = (
        "from search.tune.cluster import prepare_environment; prepare_environment(joins=False)\n"
        "import ray._private.authentication.authentication_token_setup as setup\n"
        "def refuse(): raise SystemExit('Ray writes a token of its own')\n"
        "setup.generate_and_save_token = refuse\n"
        "setup.enable_token_auth_by_default(); setup.ensure_token_if_auth_enabled(None, create_token_if_missing=True)\n"
        "print(setup.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "True", done.stderr
    assert mode(home / ".ray" / "auth_token") == 0o600


def test_two_searches_that_begin_together_agree_on_one_token(home):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: prepare_environment(joins=False), range(16)))
    assert [path.name for path in (home / ".ray").iterdir()] == ["auth_token"]
    assert len((home / ".ray" / "auth_token").read_text()) == 64


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_token_of_the_users_own_is_left_alone_and_a_sentence_says_when_others_can_read_it(
    home, joins, named, monkeypatch
):
    token = home / "mine" if named else home / ".ray" / "auth_token"
    token.parent.mkdir(exist_ok=True)
    token.write_text("mine")
    token.chmod(0o640)
    monkeypatch.setattr(token_module, "_modes_above", lambda path: [0o755])  # the folders of a test can be private
    if named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    said = prepare_environment(joins=joins)
    assert f"chmod 600 {token}" in said
    assert "\n" not in said
    assert (token.read_text(), mode(token)) == ("mine", 0o640)
    monkeypatch.setattr(token_module, "_modes_above", lambda path: [0o755, 0o700, 0o755])
    assert prepare_environment(joins=joins) is None
    monkeypatch.undo()
    token.chmod(0o600)
    assert prepare_environment(joins=joins) is None


@pytest.mark.parametrize(
    ("modes", "is_open"),
    [
        ((0o644, 0o755), True),
        ((0o644, 0o755, 0o700), False),
        ((0o640, 0o750, 0o755), True),
        ((0o604, 0o750), False),
        ((0o602, 0o711), True),
        ((0o600, 0o777), False),
    ],
)
def test_a_file_is_open_to_others_only_if_they_can_get_through_every_folder_above_it(modes, is_open):
    assert token_module.open_to_others(modes) == is_open


def test_no_token_is_made_where_none_is_needed(home, monkeypatch):
    assert prepare_environment(joins=True) is None
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert prepare_environment(joins=False) is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    assert prepare_environment(joins=False) is None
    assert not (home / ".ray").exists()


def test_where_the_home_cannot_be_written_the_token_is_in_the_environment(home):
    (home / ".ray").write_text("a file where the folder would be")
    prepare_environment(joins=False)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
