"""Where the checkpoints of a run lie: in its folder, or in a place that every node of a cluster reaches.

Such a place also gets a copy of the run folder within seconds of each change, so that a search outlives the machine
that drives it.
"""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from digits_core.data.coco import is_plain_path
from digits_core.data.remote import (
    FAULTS,
    fetch_files,
    is_address,
    list_files,
    open_place,
    persistently,
    send_folder,
    shows_whole_files,
)
from digits_core.errors import RunError, UsageError, printable, reason_of
from digits_core.files import is_inside
from digits_core.model.checkpoint_state import is_whole, load_state
from results.record.lock import DRIVER_FILE, UNSEEN_SECONDS, driver_at_work, driver_in, this_process
from results.record.log import EVENTS_FILE
from results.record.trial import TrialRecord
from results.tables.parquet import damaged_copies

TUNE_FOLDER = "tune"

SAVED = "saved"
"""Key of a trial's report: the name of its checkpoint in a remote storage."""

NOT_COPIED = (TUNE_FOLDER, DRIVER_FILE, "ray.log")


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
            UsageError: the address has another form, or is that of the run folder.
        """
        from pyarrow.fs import LocalFileSystem

        self.folder, self.address = folder, address
        if address is not None and is_address(address):
            self._fs, base = open_place(address, "--storage")
            self._root = f"{base.rstrip('/')}/{folder.name}"
        else:
            self._fs = LocalFileSystem()
            self._root = str(folder.resolve() if address is None else Path(address).resolve() / folder.name)
            own, root = folder.resolve(), Path(self._root)
            if address is not None and (own == root or own in root.parents):
                raise UsageError(
                    f"--storage {printable(address)}: lies in the run folder or is --out itself; leave it out"
                )
        self._me = f"{this_process()}, {time.time_ns()}"  # one driver may follow another in a process
        self._copied: dict[str, tuple[int, int]] = {}
        self._superseded: list[str] = []

    @property
    def is_remote(self) -> bool:
        """Whether it is another place than the run folder."""
        return self.address is not None

    @property
    def root(self) -> str:
        """Its path in its file system."""
        return self._root

    def relative(self, path: str) -> str:
        """The name of a place in it, from Ray's path."""
        return PurePosixPath(path).relative_to(self._root).as_posix()

    def reference(self, name: str) -> dict[str, Any]:
        """What a trial on any node needs to find a place in it: plain values."""
        return {"address": self.address, "root": self._root, "name": name}

    def saved(self, trial: TrialRecord) -> str | None:
        """The checkpoint that a trial goes on from, as far as can be told without asking a remote storage."""
        return trial.saved if trial.saved is not None and self.exists(trial.saved) else None

    def is_whole(self, name: str) -> bool:
        """Whether training can go on from a checkpoint in it.

        A remote storage is asked only whether the folder is there: trials look whether every file arrived.

        Raises:
            StorageError: the storage does not answer.
        """
        return self._is_folder(name) if self.is_remote else self.exists(name) and is_whole(self.folder / name)

    def last_whole(self, trial_id: str) -> tuple[str | None, int]:
        """The checkpoint of a trial's latest epoch from which training can go on, and that epoch; None and 0 without.

        Looked for in the run folder only: a remote storage holds no more than the latest of each trial.
        """
        found: dict[int, str] = {}
        for folder in (self.folder / TUNE_FOLDER).glob(f"*/{trial_id}*/checkpoint_*"):
            if folder.parent.name.partition("-")[0] == trial_id and is_whole(folder):
                found[load_state(folder).epoch] = folder.relative_to(self.folder).as_posix()
        latest = max(found, default=0)
        return found.get(latest), latest

    def exists(self, name: str, *, ask: bool = False) -> bool:
        """Whether a folder in it is there.

        Args:
            name: the folder's, relative.
            ask: a remote storage, too; else it is taken to be there.

        Raises:
            StorageError: the storage does not answer.
        """
        if not is_plain_path(name):  # a record may come from somebody else
            return False
        if self.is_remote:
            return self._is_folder(name) if ask else True
        place = self.folder / name
        return is_inside(place, self.folder) and place.is_dir() and not place.samefile(self.folder)

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path | None]:
        """A folder of the storage on this machine, for a while; None where there is none.

        Raises:
            StorageError: the storage does not give it.
        """
        if not self.exists(name, ask=True):
            yield None
            return
        if not self.is_remote:
            yield self.folder / name
            return
        with tempfile.TemporaryDirectory(prefix="digit-search-") as scratch:
            _fetch(self._fs, f"{self._root}/{name}", Path(scratch))
            yield Path(scratch)

    def delete(self, name: str) -> None:
        """Delete a folder that no record names any more; in a remote storage, once its copy of it does not."""
        if not self.exists(name):
            return
        if self.is_remote:
            self._superseded.append(name)
        else:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def delete_unreferenced(self, named: set[str]) -> None:
        """Delete checkpoints that no record names: a kill leaves them behind."""
        from pyarrow.fs import FileSelector, FileType

        folders = [f"{self._root}/{TUNE_FOLDER}"]
        with contextlib.suppress(*FAULTS):
            for _ in range(3):  # tune/001/t0000/checkpoint_000000
                found = [self._fs.get_file_info(FileSelector(one, allow_not_found=True)) for one in folders]
                folders = [info.path for some in found for info in some if info.type == FileType.Directory]
            for folder in folders:
                name = self.relative(folder)
                if PurePosixPath(name).name.startswith(("checkpoint_", ".checkpoint_")) and name not in named:
                    self._fs.delete_dir(folder)

    def check_access(self, *, resume: bool) -> None:
        """See that files can be written and deleted there, and that what lies there is this run.

        Raises:
            UserError: they cannot, it is not, or another driver is at work on it.
        """
        from pyarrow.fs import FileSelector

        if not self.is_remote:
            return
        words = f"--storage {printable(str(self.address))}"
        try:
            if resume:
                self._compare(words)
            elif self._fs.get_file_info(FileSelector(self._root, allow_not_found=True)):
                raise UsageError(
                    f"{words}: there is something called {self.folder.name} already; if it is a run, go on with it "
                    f"by --resume {self.folder.name} --storage ..., else name another"
                )
            self._write(DRIVER_FILE, self._sign())
        except FAULTS as error:
            raise UsageError(f"{words}: cannot be used ({reason_of(error)})") from None

    def _compare(self, words: str) -> None:
        """See that the run folder is not behind its copy, and that nobody else drives the run."""
        self._refuse_beside(words)
        there = self._read(EVENTS_FILE)
        there = None if there is None else there[: there.rfind(b"\n") + 1]
        if there is None:
            raise RunError(
                f"{words}: holds no run {self.folder.name}, so its checkpoints are not there; is it mounted?"
            )
        # The record as it is, or as it was before a repair: the copy may be of that one.
        here = [self.folder / EVENTS_FILE, *damaged_copies(self.folder / EVENTS_FILE)]
        if not any(path.read_bytes().startswith(there) for path in here):
            raise RunError(
                f"{words}: holds events that {self.folder} does not have, since {self.folder.name} went on elsewhere "
                "or its record was damaged here; move that folder away, and --resume with --storage fetches the run"
            )

    def _refuse_beside(self, words: str) -> None:
        """See that nobody else drives the run."""
        content = self._read(DRIVER_FILE)
        driver = driver_at_work(content)
        if driver is not None and not self._is_mine(content):
            raise RunError(
                f"{words}: {self.folder.name} is driven by {printable(driver)}; end that search first, or wait until "
                f"it has not been seen for {UNSEEN_SECONDS:.0f} s, if its machine is lost"
            )

    def fetch_run(self) -> None:
        """Bring the copy of a run folder here, where there is none.

        Raises:
            UserError: there is no such run there, it cannot be read, or somebody drives it.
        """
        from pyarrow.fs import FileSelector

        half = self.folder.with_name(f".{self.folder.name}.half")
        try:
            if not self._read(EVENTS_FILE):
                raise UsageError(f"--storage {printable(str(self.address))}: holds no run {self.folder.name}")
            self._refuse_beside(f"--storage {printable(str(self.address))}")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            tops = [info.path for info in self._fs.get_file_info(FileSelector(self._root))]
            tops = [path for path in tops if PurePosixPath(path).name not in NOT_COPIED]
            fetch_files(self._fs, self._root, list_files(self._fs, tops), half)
            half.rename(self.folder)
        except FAULTS as error:
            raise UsageError(f"--storage {printable(str(self.address))}: cannot be read ({reason_of(error)})") from None
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def copy(self) -> None:
        """Bring the copy of the run folder up to date.

        The record is read first and written last, so that all that it names is there. What is gone here, and
        checkpoints that the record no longer names, go there after it.

        Raises:
            StorageError: the storage did not take it all, or another driver has taken the run over.
        """
        superseded, self._superseded = self._superseded, []
        try:
            sign = self._read(DRIVER_FILE)
            if driver_in(sign) is not None and not self._is_mine(sign):
                raise StorageError("another search drives this run now; end this one")
            self._write(DRIVER_FILE, self._sign())
            events = (self.folder / EVENTS_FILE).read_bytes()
            found = {name: mark for name, mark in _marks(self.folder) if name != EVENTS_FILE}
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
            while superseded:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.delete_dir(f"{self._root}/{superseded[-1]}")
                superseded.pop()
        except FAULTS as error:
            self._superseded = superseded + self._superseded
            raise error if isinstance(error, StorageError) else StorageError(reason_of(error)) from None

    def release(self) -> None:
        """The driver is done: another may come at once."""
        if not self.is_remote:
            return
        with contextlib.suppress(*FAULTS):
            self._fs.delete_file(f"{self._root}/{DRIVER_FILE}")

    def forget(self) -> None:
        """Delete what this driver has put there, for a run that came to nothing; `try_out` found the place empty."""
        with contextlib.suppress(*FAULTS):
            self._fs.delete_dir(self._root)

    def _is_mine(self, sign: bytes | None) -> bool:
        known = driver_in(sign)
        return known is not None and known[0] == self._me

    def _sign(self) -> bytes:
        return json.dumps({"driver": self._me, "seen": time.time()}).encode()

    def _is_folder(self, name: str) -> bool:
        from pyarrow.fs import FileType

        try:
            return bool(self._fs.get_file_info(f"{self._root}/{name}").type == FileType.Directory)
        except FAULTS as error:
            raise StorageError(reason_of(error)) from None

    def _read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""

        def read() -> bytes | None:
            try:
                with self._fs.open_input_stream(f"{self._root}/{name}") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        return persistently(read)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file, so that it is seen whole or not at all."""
        path = f"{self._root}/{name}"
        half = path
        if self.address is None or not shows_whole_files(self.address):
            # A store shows a file when it is whole; a folder shows what there is of it.
            self._fs.create_dir(str(PurePosixPath(path).parent), recursive=True)
            half = str(PurePosixPath(path).with_name(f".{PurePosixPath(path).name}.half"))

        def write() -> None:
            with self._fs.open_output_stream(half) as file:
                file.write(content)

        persistently(write)
        if half != path:
            self._fs.move(half, path)


def store_checkpoint(where: dict[str, Any], checkpoint: Path) -> None:
    """Put a checkpoint of this node where `Storage.reference` says, whole or not at all.

    Raises:
        StorageError: the storage does not take it.
    """
    address, path = where["address"], f"{where['root']}/{where['name']}"
    try:
        if is_address(address):
            filesystem, _ = open_place(address, "--storage")
            send_folder(filesystem, checkpoint, path)
            return
        half = Path(path).with_name(f".{Path(path).name}.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(checkpoint, half)
        half.rename(path)
    except FAULTS as error:
        raise StorageError(reason_of(error)) from None


def fetch_checkpoint(where: dict[str, Any], target: Path) -> Path | None:
    """A checkpoint on this node, by what `Storage.reference` gave; None where it is gone.

    Raises:
        StorageError: the storage does not give it.
    """
    from pyarrow.fs import FileType

    address, path = where["address"], f"{where['root']}/{where['name']}"
    if address is None or not is_address(address):
        return Path(path) if Path(path).is_dir() else None
    filesystem, _ = open_place(address, "--storage")
    try:
        there = filesystem.get_file_info(path).type == FileType.Directory
    except FAULTS as error:
        raise StorageError(reason_of(error)) from None
    if there:
        _fetch(filesystem, path, target)
    return target if there else None


def _fetch(filesystem: Any, path: str, target: Path) -> None:
    try:
        fetch_files(filesystem, path, list_files(filesystem, [path]), target)
    except FAULTS as error:
        raise StorageError(reason_of(error)) from None


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
