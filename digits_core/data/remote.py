"""Folders behind an address, as s3://bucket/folder: opened with the machine's own credentials, fetched once."""

import hashlib
import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileSystemHandler, FileType, PyFileSystem

from digits_core.errors import UsageError, UserError, printable, reason_of, refuse_credentials
from digits_core.files import is_inside

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
S3_OPTIONS = ("endpoint_override", "region", "scheme")

ATTEMPTS = 3
"""Of pyarrow itself, for one request."""

CONNECT_S, ANSWER_S = 5.0, 30.0
"""Waited for a connection and for an answer."""

PATIENCE_S = 20.0
"""A store that answers that it is out of order is asked again for so long, with growing pauses."""

FIRST_PAUSE_S, PAUSE_GROWTH = 0.1, 1.6
"""The first of these pauses, and how many times as long each other is as the one before."""

STREAMS, CHUNK = 16, 2**20
"""Files fetched side by side, and bytes at a time."""

FAULTS = (OSError, ArrowException)
"""What a file system raises."""

_PASSING = re.compile(
    r"HTTP status 5\d\d|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|NETWORK_CONNECTION|REQUEST_TIMEOUT|"
    r"timed? ?out|Failed to flush|curlCode"
)
"""Of errors that another try may not meet; the library's own tries do not cover answers that break off."""

Result = TypeVar("Result")


class StoreError(UserError):
    """A store does not give what it should, for now."""


def is_address(folder: str) -> bool:
    """Whether this names a folder behind an address, and not one of this machine's paths."""
    return "://" in folder


def shows_whole_files(address: str) -> bool:
    """Whether a place has names alone, no folders, and shows a file once all of it is there."""
    return urlsplit(address).scheme in ("s3", "gs", "gcs")


def open_place(address: str, flag: str) -> tuple[FileSystem, str]:
    """The file system behind an address, and the folder's path in it; nothing is asked of it yet.

    Args:
        address: as `s3://bucket/folder?endpoint_override=HOST:PORT&scheme=http`, or another scheme that pyarrow knows.
        flag: names it in messages.

    Raises:
        UsageError: the address has another form, or holds credentials: those belong in the environment.
    """
    refuse_credentials(flag, address)
    try:
        parts = urlsplit(address)
        query = parse_qs(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise UsageError(f"{flag} {printable(address)}: {error}") from None
    plain = printable(address.partition("?")[0])
    if parts.scheme not in SCHEMES:
        raise UsageError(f"{flag} {plain}: the address begins with one of {', '.join(SCHEMES)}")
    if parts.scheme == "s3" and (not parts.netloc or not set(query) <= set(S3_OPTIONS)):
        raise UsageError(f"{flag} {plain}: an address is s3://BUCKET/FOLDER, then ? and any of {', '.join(S3_OPTIONS)}")
    try:
        handler = _file_system(address)
    except (*FAULTS, ValueError) as error:
        raise UsageError(f"{flag} {plain}: {reason_of(error)}") from None
    return PyFileSystem(handler), handler.path


@lru_cache(maxsize=16)
def _file_system(address: str) -> "AddressedFileSystem":
    """One for each address: a trial asks at every epoch, and each logs in anew."""
    return AddressedFileSystem(address)


class AddressedFileSystem(FileSystemHandler):
    """A file system that travels between processes as its address.

    Pyarrow's own take the credentials they found along, into whatever keeps them. Questions are asked again while the
    store is out of order; who reads or writes a file does that for the whole of it, with `persistently`.
    """

    def __init__(self, address: str) -> None:
        """Stand for the file system of an address; it is opened when first used."""
        self.address = address
        parts = urlsplit(address)
        self.path = f"{parts.netloc}{parts.path}".strip("/")
        self._opened: FileSystem | None = None
        if parts.scheme != "s3":
            self._opened, self.path = FileSystem.from_uri(address)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.address,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressedFileSystem) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    @property
    def _inner(self) -> FileSystem:
        if self._opened is None:
            from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

            options = {name: values[-1] for name, values in parse_qs(urlsplit(self.address).query).items()}
            self._opened = S3FileSystem(
                retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
                connect_timeout=CONNECT_S,
                request_timeout=ANSWER_S,
                **options,
            )
        return self._opened

    def get_type_name(self) -> str:
        """Its scheme."""
        return urlsplit(self.address).scheme

    def normalize_path(self, path: str) -> str:
        """As the file system behind does."""
        return str(self._inner.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """Of each path."""
        return persistently(lambda: list(self._inner.get_file_info(paths)))

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """Of what a folder holds."""
        return persistently(lambda: list(self._inner.get_file_info(selector)))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Make a folder; a store has names alone, and needs none."""
        if not shows_whole_files(self.address):
            self._inner.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        """Delete a folder with what it holds."""
        persistently(lambda: self._inner.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete what a folder holds."""
        persistently(lambda: self._inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        """Never: all there is would go."""
        raise OSError("a whole store is not deleted")

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        persistently(lambda: self._inner.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        """Rename."""
        self._inner.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy within the store."""
        self._inner.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        """Read from the start on."""
        return self._inner.open_input_stream(path, compression=None)

    def open_input_file(self, path: str) -> Any:
        """Read anywhere."""
        return self._inner.open_input_file(path)

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> Any:
        """Write a file."""
        return self._inner.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: dict[str, str] | None) -> Any:
        """Write on."""
        return self._inner.open_append_stream(path, compression=None, metadata=metadata)


def persistently(action: Callable[[], Result]) -> Result:
    """What an action gives; tried again with growing pauses while the store answers that it is out of order.

    Raises:
        OSError: it will not, or is refused for another reason.
    """
    until, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
    while True:
        try:
            return action()
        except FAULTS as error:
            if not _PASSING.search(str(error)) or time.monotonic() + pause > until:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause *= PAUSE_GROWTH


def fetched(address: str, parts: Sequence[str], root: Path, flag: str) -> Path:
    """A folder of this machine that holds what a folder behind an address holds; fetched once, under a lock.

    Another size or time of any file is another folder: data that changed is fetched anew.

    Args:
        address: of the folder.
        parts: names of the files and folders to fetch, relative to it; those that are not there are left out.
        root: where it goes, under `fetched/`.
        flag: names the address in messages.

    Raises:
        UsageError: the address has another form, or holds none of them.
        StoreError: nothing can be read there for now.
    """
    from filelock import FileLock

    filesystem, base = open_place(address, flag)
    base = base.rstrip("/")
    try:
        found = list_files(filesystem, [f"{base}/{part}" for part in parts])
    except FAULTS as error:
        raise StoreError(f"{flag} {printable(address)}: cannot be read ({reason_of(error)})") from None
    if not found:
        raise UsageError(f"{flag} {printable(address)}: holds none of {', '.join(parts)}")
    listing = sorted((info.path, info.size, info.mtime_ns) for info in found)
    mark = hashlib.blake2b(repr((address, listing)).encode(), digest_size=16).hexdigest()
    target = root / "fetched" / mark
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{mark}.lock")):
        if target.is_dir():
            return target
        half = target.with_name(f"{mark}.half")
        shutil.rmtree(half, ignore_errors=True)  # we hold the lock: whoever began it is dead
        half.mkdir()
        try:
            fetch_files(filesystem, base, found, half)
        except FAULTS as error:
            raise StoreError(f"{flag} {printable(address)}: cannot be fetched ({reason_of(error)})") from None
        else:
            half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return target


def list_files(filesystem: FileSystem, paths: list[str]) -> list[FileInfo]:
    """The files at some paths and in the folders there; paths where nothing is are passed over.

    Raises:
        OSError: the file system does not answer.
    """
    found = []
    for info in filesystem.get_file_info(paths):
        if info.type == FileType.File:
            found.append(info)
        elif info.type == FileType.Directory:
            found += filesystem.get_file_info(FileSelector(info.path, recursive=True))
    return [info for info in found if info.type == FileType.File]


def fetch_files(filesystem: FileSystem, base: str, files: Sequence[FileInfo], target: Path) -> None:
    """Copy files into a folder of this machine, by their names under `base`.

    Raises:
        OSError: one of them cannot be read or written, comes short, or its name leaves the folder.
    """

    def fetch(info: FileInfo) -> None:
        name = info.path.removeprefix(base).strip("/")
        place = target / name
        if not is_inside(place, target):
            raise OSError(f"the name {printable(name)} leaves the folder")
        place.parent.mkdir(parents=True, exist_ok=True)

        def copy() -> None:
            with filesystem.open_input_stream(info.path) as source, place.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)

        persistently(copy)
        if place.stat().st_size != info.size:
            raise OSError(f"{printable(name)} has {place.stat().st_size} bytes here and {info.size} there")

    with ThreadPoolExecutor(STREAMS) as pool:
        for _ in pool.map(fetch, files):
            pass


def send_folder(filesystem: FileSystem, folder: Path, path: str) -> None:
    """Copy a folder of this machine to a store, and see that all of it is there.

    pyarrow's own copy of folders passes over errors in the middle of a file: what it lost was found missing later.

    Raises:
        OSError: it is not all there.
    """
    files = {one.relative_to(folder).as_posix(): one for one in folder.rglob("*") if one.is_file()}

    def send(name: str) -> None:
        content = files[name].read_bytes()

        def write() -> None:
            with filesystem.open_output_stream(f"{path}/{name}") as file:
                file.write(content)

        persistently(write)

    with ThreadPoolExecutor(STREAMS) as pool:
        for _ in pool.map(send, files):
            pass
    there = {info.path.removeprefix(path).strip("/"): info.size for info in list_files(filesystem, [path])}
    lacking = [name for name, one in files.items() if there.get(name) != one.stat().st_size]
    if lacking:
        raise OSError(f"{printable(lacking[0])} did not arrive")
