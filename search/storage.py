"""Where the checkpoints of a run lie: in its folder, or in a place that every node of a cluster reaches.

Such a place also gets a copy of the run folder within seconds of each change, so that a search outlives the machine
that drives it.
"""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from digits_core.errors import UsageError, printable
from digits_core.files import is_inside
from digits_core.remote import FAULTS, fetch_files, is_address, list_files, open_place, reason
from results.record import EVENTS_FILE, TrialRecord

TUNE_FOLDER = "tune"

COPY_SECONDS = 5.0
"""The copy follows at most this often, and takes no more than half of the time."""

LAST_TRIES = 12
"""Attempts to complete the copy when a search ends."""

NOT_COPIED = (TUNE_FOLDER, "ray.log")


class StorageError(OSError):
    """The storage did not give or take what it should, for now."""


class Storage:
    """The place of a run's checkpoints."""

    def __init__(self, folder: Path, address: str | None = None) -> None:
        """Name the place; nothing is asked of it yet.

        Args:
            folder: the run's.
            address: of a folder that holds runs, a path or as s3://bucket/folder; None stands for the run folder.

        Raises:
            UsageError: the address has another form.
        """
        from pyarrow.fs import LocalFileSystem

        self.folder, self.address = folder, address
        if address is not None and is_address(address):
            self._fs, base = open_place(address, "--storage")
            self._root = f"{base.rstrip('/')}/{folder.name}"
        else:
            self._fs = LocalFileSystem()
            self._root = str(folder.resolve() if address is None else Path(address).absolute() / folder.name)
        self._copied: dict[str, tuple[int, int]] = {}

    @property
    def apart(self) -> bool:
        """Whether it is another place than the run folder."""
        return self.address is not None

    def tune_settings(self) -> dict[str, Any]:
        """Of Ray's RunConfig."""
        return {"storage_path": f"{self._root}/{TUNE_FOLDER}", "storage_filesystem": self._fs}

    def relative(self, path: str) -> str:
        """The name of a place in it, from Ray's path."""
        return PurePosixPath(path).relative_to(self._root).as_posix()

    def where(self, name: str) -> dict[str, Any]:
        """What a trial on any node needs to find a place in it: plain values."""
        return {"address": self.address, "path": f"{self._root}/{name}"}

    def saved(self, trial: TrialRecord) -> str | None:
        """The checkpoint that a trial goes on from, as far as can be told without asking a storage that is apart."""
        return trial.saved if trial.saved is not None and self.holds(trial.saved) else None

    @contextlib.contextmanager
    def here(self, name: str) -> Iterator[Path | None]:
        """A folder of the storage on this machine, for a while; None where there is none.

        Raises:
            StorageError: the storage does not give it.
        """
        if not self.apart:
            place = self.folder / name
            yield place if self.holds(name) else None
            return
        if not self._is_folder(name):
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="digit-search-") as scratch:
            _fetch(self._fs, f"{self._root}/{name}", Path(scratch))
            yield Path(scratch)

    def holds(self, name: str, *, ask: bool = False) -> bool:
        """Whether a folder in it is there.

        Args:
            name: the folder's, relative.
            ask: a storage that is apart, too; else it is taken to be there.

        Raises:
            StorageError: the storage does not answer.
        """
        if self.apart:
            return self._is_folder(name) if ask else True
        place = self.folder / name
        return is_inside(place, self.folder) and place.is_dir() and not place.samefile(self.folder)

    def drop(self, name: str) -> None:
        """Delete a folder; what a storage does not delete just now stays."""
        if not self.apart:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            return
        with contextlib.suppress(*FAULTS):
            self._fs.delete_dir(f"{self._root}/{name}".rstrip("/"))

    def try_out(self, *, resume: bool) -> None:
        """See that files can be written and deleted there, and that no other run of that name lies there.

        Raises:
            UsageError: they cannot, or one does.
        """
        from pyarrow.fs import FileType

        if not self.apart:
            return
        try:
            if not resume and self._fs.get_file_info(f"{self._root}/{EVENTS_FILE}").type == FileType.File:
                raise UsageError(
                    f"--storage {printable(str(self.address))}: holds a run {self.folder.name}; go on with it by "
                    f"--resume {self.folder.name} --storage ..., or name another"
                )
            self._write(".tried", b"written to try the storage")
            self._fs.delete_file(f"{self._root}/.tried")
        except FAULTS as error:
            raise UsageError(
                f"--storage {printable(str(self.address))}: cannot be written to ({reason(error)})"
            ) from None

    def fetch_run(self) -> None:
        """Bring the copy of a run folder here, where there is none.

        Raises:
            UsageError: there is no such run there, or it cannot be read.
        """
        from pyarrow.fs import FileSelector, FileType

        half = self.folder.with_name(f".{self.folder.name}.half")
        try:
            if self._fs.get_file_info(f"{self._root}/{EVENTS_FILE}").type != FileType.File:
                raise UsageError(f"--storage {printable(str(self.address))}: holds no run {self.folder.name}")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            tops = [info.path for info in self._fs.get_file_info(FileSelector(self._root))]
            tops = [path for path in tops if PurePosixPath(path).name not in NOT_COPIED]
            files = [info.path for info in list_files(self._fs, tops)]
            fetch_files(self._fs, self._root, files, half)
            half.rename(self.folder)
        except FAULTS as error:
            raise UsageError(f"--storage {printable(str(self.address))}: cannot be read ({reason(error)})") from None
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def copy(self) -> None:
        """Bring the copy of the run folder up to date.

        The record is read first and written last, so that all that it names is there; what is gone here goes there
        when no record names it any more.

        Raises:
            StorageError: the storage did not take it all.
        """
        events = (self.folder / EVENTS_FILE).read_bytes()
        found = {name: mark for name, mark in _marks(self.folder) if name != EVENTS_FILE}
        try:
            for name, mark in found.items():
                if self._copied.get(name) == mark:
                    continue
                try:
                    content = (self.folder / name).read_bytes()
                except FileNotFoundError:  # gone since
                    continue
                self._write(name, content)
                self._copied[name] = mark
            if self._copied.get(EVENTS_FILE) != (len(events), 0):
                self._write(EVENTS_FILE, events)
                self._copied[EVENTS_FILE] = (len(events), 0)
            for name in [name for name in self._copied if name not in found and name != EVENTS_FILE]:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.delete_file(f"{self._root}/{name}")
                del self._copied[name]
        except FAULTS as error:
            raise StorageError(reason(error)) from None

    def _is_folder(self, name: str) -> bool:
        from pyarrow.fs import FileType

        try:
            return bool(self._fs.get_file_info(f"{self._root}/{name}").type == FileType.Directory)
        except FAULTS as error:
            raise StorageError(reason(error)) from None

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        self._fs.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with self._fs.open_output_stream(path) as file:
            file.write(content)


def fetch_checkpoint(where: dict[str, Any], target: Path) -> Path | None:
    """A checkpoint on this node, by what `Storage.where` gave; None where it is gone.

    Raises:
        StorageError: the storage does not give it.
    """
    address, path = where["address"], where["path"]
    if address is None or not is_address(address):
        return Path(path) if Path(path).is_dir() else None
    from pyarrow.fs import FileType

    filesystem, _ = open_place(address, "--storage")
    try:
        there = filesystem.get_file_info(path).type == FileType.Directory
    except FAULTS as error:
        raise StorageError(reason(error)) from None
    if there:
        _fetch(filesystem, path, target)
    return target if there else None


def _fetch(filesystem: Any, path: str, target: Path) -> None:
    try:
        fetch_files(filesystem, path, [info.path for info in list_files(filesystem, [path])], target)
    except FAULTS as error:
        raise StorageError(reason(error)) from None


def _marks(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, size and time of each file to copy."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in NOT_COPIED or any(part.startswith(".") for part in name.parts):
            continue
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                yield name.as_posix(), (found.st_size, found.st_mtime_ns)


class Copier:
    """Keeps the copy of a run folder up to date, in a thread of its own; where none is kept it does nothing.

    Attributes:
        storage: where the copy lies.
        fault: why the storage takes nothing for now; None while it does.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        """Copy to a storage; `say` tells the person at the terminal a sentence."""
        self.storage, self._say = storage, say
        self.fault: str | None = None
        self._ended = threading.Event()
        self._wanted = storage.apart
        self._thread = threading.Thread(target=self._follow, name="copier", daemon=True)

    def __enter__(self) -> "Copier":
        """Begin."""
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Complete the copy, as far as the storage lets it."""
        self._ended.set()
        if not self._wanted:
            return
        self._thread.join()
        for _ in range(LAST_TRIES):
            if self._copy():
                return
            time.sleep(COPY_SECONDS)
        self._say(f"the copy of {self.storage.folder} in --storage is not whole ({self.fault}); --resume completes it")

    @contextlib.contextmanager
    def telling(self, say: Callable[[str], None]) -> Iterator[None]:
        """Tell another terminal for a while."""
        before, self._say = self._say, say
        try:
            yield
        finally:
            self._say = before

    def forget(self) -> None:
        """The run came to nothing: no copy of it is kept."""
        self._wanted = False
        self._ended.set()
        if self.storage.apart:
            self._thread.join()
            self.storage.drop("")

    def _follow(self) -> None:
        pause = COPY_SECONDS
        while not self._ended.wait(pause):
            started = time.monotonic()
            self._copy()
            pause = max(COPY_SECONDS, time.monotonic() - started)

    def _copy(self) -> bool:
        before = self.fault
        try:
            self.storage.copy()
            self.fault = None
        except OSError as error:
            self.fault = str(error) or type(error).__name__
        if self.fault is not None and before is None:
            self._say(
                f"--storage {self.storage.address} does not take the run folder ({self.fault}); it is tried again, "
                "and no new trial is started until it does"
            )
        elif self.fault is None and before is not None:
            self._say("--storage takes the run folder again")
        return self.fault is None
