"""The storage of a run's checkpoints: its run folder, or a remote place that every node of a cluster can access.

A remote storage also contains a copy of the run folder that follows each change within seconds, so that the search can
be resumed when the machine of its driver is lost.
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
from search.storage.new_folder import new_folder

TUNE_FOLDER = "tune"

SAVED = "saved"
"""Key of a trial's report; its value is the name of the checkpoint in a remote storage."""

NOT_COPIED = (TUNE_FOLDER, DRIVER_FILE, "ray.log")


class StorageError(OSError):
    """The storage could not be read or written; it may work later."""


class Storage:
    """The storage of a run's checkpoints."""

    def __init__(self, folder: Path, address: str | None = None) -> None:
        """Describe the storage; does not connect to it.

        Args:
            folder: the run folder.
            address: a folder of runs, as a path or as s3://bucket/folder; None stores checkpoints in the run folder.

        Raises:
            UsageError: the address has another form, or points to or into the run folder.
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
                    f"--storage {printable(address)}: is in the run folder or equal to --out; omit the flag"
                )
        self._me = f"{this_process()}, {time.time_ns()}"  # a process may run several drivers, one after another
        self._copied: dict[str, tuple[int, int]] = {}
        self._superseded: list[str] = []

    @property
    def is_remote(self) -> bool:
        """Whether it is not the run folder."""
        return self.address is not None

    @property
    def root(self) -> str:
        """Its path in the file system of the storage."""
        return self._root

    def relative(self, path: str) -> str:
        """The name of a path of Ray, relative to the storage."""
        return PurePosixPath(path).relative_to(self._root).as_posix()

    def reference(self, name: str) -> dict[str, Any]:
        """The plain values that a trial on any node needs to find `name` in the storage."""
        return {"address": self.address, "root": self._root, "name": name}

    def saved(self, trial: TrialRecord) -> str | None:
        """The checkpoint that a trial continues from; does not check whether it exists in a remote storage."""
        return trial.saved if trial.saved is not None and self.exists(trial.saved) else None

    def is_whole(self, name: str) -> bool:
        """Whether training can continue from a checkpoint.

        In a remote storage only the existence of the folder is checked: the trial checks every file.

        Raises:
            StorageError: the storage does not answer.
        """
        return self._is_folder(name) if self.is_remote else self.exists(name) and is_whole(self.folder / name)

    def last_whole(self, trial_id: str) -> tuple[str | None, int]:
        """A trial's latest complete checkpoint and its epoch; None and 0 if there is none.

        Searches only the run folder: a remote storage contains only the latest checkpoint of each trial.
        """
        found: dict[int, str] = {}
        for folder in (self.folder / TUNE_FOLDER).glob(f"*/{trial_id}*/checkpoint_*"):
            if folder.parent.name.partition("-")[0] == trial_id and is_whole(folder):
                found[load_state(folder).epoch] = folder.relative_to(self.folder).as_posix()
        latest = max(found, default=0)
        return found.get(latest), latest

    def exists(self, name: str, *, ask: bool = False) -> bool:
        """Whether a folder exists in the storage.

        Args:
            name: the relative name of the folder.
            ask: whether to ask a remote storage; otherwise the folder is assumed to exist there.

        Raises:
            StorageError: the storage does not answer.
        """
        if not is_plain_path(name):  # the record may come from somebody else
            return False
        if self.is_remote:
            return self._is_folder(name) if ask else True
        place = self.folder / name
        return is_inside(place, self.folder) and place.is_dir() and not place.samefile(self.folder)

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path | None]:
        """A folder of the storage, as a local folder inside the with block; None if it does not exist.

        Raises:
            StorageError: the folder cannot be read.
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
        """Delete a checkpoint folder that the record no longer references.

        In a remote storage it is deleted after the next copy of the record, which must not reference it either.
        """
        if not self.exists(name):
            return
        if self.is_remote:
            self._superseded.append(name)
        else:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def delete_unreferenced(self, named: set[str]) -> None:
        """Delete the checkpoints that are not in `named`: a killed search leaves some behind."""
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
        """Check that a remote storage can be written and contains this run, or none if it is new.

        Raises:
            UserError: it cannot be written, contains another run, or another driver uses it.
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
                    f"{words}: {self.folder.name} already exists there; if it is a run, resume it with "
                    f"digit-search resume {self.folder.name} --storage ..., otherwise give another name"
                )
            self._write(DRIVER_FILE, self._driver_note())
        except FAULTS as error:
            raise UsageError(f"{words}: cannot be used ({reason_of(error)})") from None

    def _compare(self, words: str) -> None:
        """Check that the run folder is not older than its copy, and that no other driver runs the search."""
        self._refuse_other_driver(words)
        there = self._read(EVENTS_FILE)
        there = None if there is None else there[: there.rfind(b"\n") + 1]
        if there is None:
            raise RunError(
                f"{words}: contains no run {self.folder.name}, so its checkpoints are missing; is the folder mounted?"
            )
        # The copy may be of the current record or of one from before a repair.
        here = [self.folder / EVENTS_FILE, *damaged_copies(self.folder / EVENTS_FILE)]
        if not any(path.read_bytes().startswith(there) for path in here):
            raise RunError(
                f"{words}: contains events that {self.folder} does not have: {self.folder.name} was resumed elsewhere "
                "or its record was damaged here; move that folder away, then --resume with --storage fetches the run"
            )

    def _refuse_other_driver(self, words: str) -> None:
        """Check that no other driver runs the search."""
        content = self._read(DRIVER_FILE)
        driver = driver_at_work(content)
        if driver is not None and not self._is_mine(content):
            raise RunError(
                f"{words}: {printable(driver)} runs the search {self.folder.name}; end that search first, or, if its "
                f"machine is lost, wait until it has been silent for {UNSEEN_SECONDS:.0f} s"
            )

    def fetch_run(self) -> None:
        """Copy a run folder from the remote storage to this machine, where it does not exist.

        Raises:
            UserError: the storage has no such run, cannot be read, or another driver runs the search.
        """
        from pyarrow.fs import FileSelector

        words = f"--storage {printable(str(self.address))}"
        try:
            if not self._read(EVENTS_FILE):
                raise UsageError(f"{words}: contains no run {self.folder.name}")
            self._refuse_other_driver(words)
            with new_folder(self.folder) as half:
                tops = [info.path for info in self._fs.get_file_info(FileSelector(self._root))]
                tops = [path for path in tops if PurePosixPath(path).name not in NOT_COPIED]
                fetch_files(self._fs, self._root, list_files(self._fs, tops), half)
        except FAULTS as error:
            raise UsageError(f"{words}: cannot be read ({reason_of(error)})") from None

    def copy(self) -> None:
        """Bring the remote copy of the run folder up to date.

        The record is read first and written last, so that everything that the copied record references is already
        there. Files and checkpoints that no longer exist or are no longer referenced are deleted after it.

        Raises:
            StorageError: the copy is incomplete, or another driver has taken over the run.
        """
        superseded, self._superseded = self._superseded, []
        try:
            note = self._read(DRIVER_FILE)
            if driver_in(note) is not None and not self._is_mine(note):
                raise StorageError("another driver has taken over this run; end this search")
            self._write(DRIVER_FILE, self._driver_note())
            events = (self.folder / EVENTS_FILE).read_bytes()
            found = {name: mark for name, mark in _marks(self.folder) if name != EVENTS_FILE}
            for name, mark in found.items():
                if self._copied.get(name) == mark:
                    continue
                try:
                    content = (self.folder / name).read_bytes()
                except FileNotFoundError:  # deleted in the meantime
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
        """Remove this driver's note, so that another driver can start at once."""
        if not self.is_remote:
            return
        with contextlib.suppress(*FAULTS):
            self._fs.delete_file(f"{self._root}/{DRIVER_FILE}")

    def forget(self) -> None:
        """Delete the copy of a run without trials; `check_access` has found that nothing else was there."""
        with contextlib.suppress(*FAULTS):
            self._fs.delete_dir(self._root)

    def _is_mine(self, note: bytes | None) -> bool:
        known = driver_in(note)
        return known is not None and known[0] == self._me

    def _driver_note(self) -> bytes:
        return json.dumps({"driver": self._me, "seen": time.time()}).encode()

    def _is_folder(self, name: str) -> bool:
        from pyarrow.fs import FileType

        try:
            return bool(self._fs.get_file_info(f"{self._root}/{name}").type == FileType.Directory)
        except FAULTS as error:
            raise StorageError(reason_of(error)) from None

    def _read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""

        def read() -> bytes | None:
            try:
                with self._fs.open_input_stream(f"{self._root}/{name}") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        return persistently(read)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file so that readers see it complete or not at all."""
        path = f"{self._root}/{name}"
        half = path
        if self.address is None or not shows_whole_files(self.address):
            # An object store shows only complete files; a shared folder also shows unfinished ones.
            self._fs.create_dir(str(PurePosixPath(path).parent), recursive=True)
            half = str(PurePosixPath(path).with_name(f".{PurePosixPath(path).name}.half"))

        def write() -> None:
            with self._fs.open_output_stream(half) as file:
                file.write(content)

        persistently(write)
        if half != path:
            self._fs.move(half, path)


def store_checkpoint(where: dict[str, Any], checkpoint: Path) -> None:
    """Copy a checkpoint of this node to the place of a `Storage.reference`, completely or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    address, path = where["address"], f"{where['root']}/{where['name']}"
    try:
        if is_address(address):
            filesystem, _ = open_place(address, "--storage")
            send_folder(filesystem, checkpoint, path)
            return
        with new_folder(Path(path)) as half:
            shutil.copytree(checkpoint, half, dirs_exist_ok=True)
    except FAULTS as error:
        raise StorageError(reason_of(error)) from None


def fetch_checkpoint(where: dict[str, Any], target: Path) -> Path | None:
    """The checkpoint of a `Storage.reference` as a folder of this node; None if it no longer exists.

    Raises:
        StorageError: it cannot be read.
    """
    from pyarrow.fs import FileType

    address, path = where["address"], f"{where['root']}/{where['name']}"
    if address is None or not is_address(address):
        return Path(path) if Path(path).is_dir() else None
    filesystem, _ = open_place(address, "--storage")
    try:
        exists = filesystem.get_file_info(path).type == FileType.Directory
    except FAULTS as error:
        raise StorageError(reason_of(error)) from None
    if exists:
        _fetch(filesystem, path, target)
    return target if exists else None


def _fetch(filesystem: Any, path: str, target: Path) -> None:
    try:
        fetch_files(filesystem, path, list_files(filesystem, [path]), target)
    except FAULTS as error:
        raise StorageError(reason_of(error)) from None


def _marks(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, size and modification time of each file to copy."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in NOT_COPIED or any(part.startswith(".") for part in name.parts):
            continue
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                yield name.as_posix(), (found.st_size, found.st_mtime_ns)
