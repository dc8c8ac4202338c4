"""How a command ends if the operating system refuses access."""

import errno
import os

import pytest

from digits_core.command import run_command


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "tool: no permission for /there/file: check whether you can read, write or execute it"),
        (errno.EPERM, "tool: no permission for /there/file: check whether you can read, write or execute it"),
        (errno.ENOSPC, "tool: cannot write /there/file: No space left on device"),
        (errno.EROFS, "tool: cannot write /there/file: Read-only file system"),
        (errno.EISDIR, "tool: /there/file: Is a directory"),
        (errno.ENOTDIR, "tool: /there/file: Not a directory"),
        (errno.EIO, "tool: /there/file: Input/output error"),
        (errno.ESTALE, "tool: /there/file: Stale file handle"),
    ],
)
@pytest.mark.parametrize("renamed", [False, True])
def test_what_the_system_refuses_is_one_sentence_that_names_the_file(number, said, renamed, capsys):
    def body():
        places = ("/there/.half", None, "/there/file") if renamed else ("/there/file",)
        raise OSError(number, os.strerror(number), *places)

    assert run_command("tool", body) == 2
    assert capsys.readouterr().err.strip() == said


def test_a_fault_of_the_program_keeps_its_traceback():
    def body():
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        run_command("tool", body)
