"""Processes that tests start: waited for by what they bring about, and quoted when they do not."""

import subprocess
import time

import pytest

LAST_LINES = 15


def wait_until(state, what, process=None, seconds=900):
    """What `state()` gives once it is true.

    Args:
        state: asked again and again.
        what: it waits for, in words.
        process: brings it about; once it has ended there is nothing to wait for.
        seconds: waited at most. Generous: a busy machine may stop for a while.
    """
    end = time.monotonic() + seconds
    while True:
        ended = process is not None and process.poll() is not None
        found = state()
        if found:
            return found
        if ended:
            pytest.fail(f"{what} did not come; {quoted(process)}", pytrace=False)
        if time.monotonic() > end:
            if process is not None:
                process.kill()
            said = "" if process is None else f"; {quoted(process)}"
            pytest.fail(f"{what} did not come within {seconds} s{said}", pytrace=False)
        time.sleep(0.1)


def finish(process, seconds=900):
    """Exit code, output and errors of a process that ends without a traceback."""
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"a process did not end within {seconds} s; {quoted(process)}", pytrace=False)
    if "Traceback" in errors:
        pytest.fail(f"a traceback: {last_lines(errors)}", pytrace=False)
    return process.returncode, out, errors


def quoted(process):
    """The end of a process in words: its exit code and the last lines of what it said."""
    out, errors = process.communicate(timeout=60)
    said = "\n".join(text for text in (out, errors) if text)
    return f"its process ended with exit code {process.returncode} and said:\n{last_lines(said)}"


def last_lines(text):
    return "\n".join(text.rstrip().splitlines()[-LAST_LINES:])
