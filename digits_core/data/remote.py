"""Folders at an address like s3://bucket/folder: opened with the credentials of the machine, downloaded once."""

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
"""Attempts of pyarrow for one request."""

CONNECT_S, ANSWER_S = 5.0, 30.0
"""The longest wait for a connection and for an answer, in seconds."""

PATIENCE_S = 20.0
"""A request with a temporary error is repeated for this many seconds, with increasing pauses."""

FIRST_PAUSE_S, PAUSE_GROWTH = 0.1, 1.6
"""The first of these pauses in seconds, and the factor from each pause to the next one."""

STREAMS, CHUNK = 16, 2**20
"""Files that are transferred at the same time, and bytes per read."""

FAULTS = (OSError, ArrowException)
"""The exceptions of a file system."""

_PASSING = re.compile(
    r"HTTP status 5\d\d|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|NETWORK_CONNECTION|REQUEST_TIMEOUT|"
    r"timed? ?out|Failed to flush|curlCode"
)
"""Texts of temporary errors; pyarrow does not repeat a request whose answer was interrupted."""

Result = TypeVar("Result")


class StoreError(UserError):
    """A store cannot be read or written at the moment."""


def is_address(folder: str) -> bool:
    """Whether this is an address and not a local path."""
    return "://" in folder


def shows_whole_files(address: str) -> bool:
    """Whether the address is an object store: it has no folders, and a file is visible only when it is complete."""
    return urlsplit(address).scheme in ("s3", "gs", "gcs")


def open_place(address: str, flag: str) -> tuple[FileSystem, str]:
    """The file system of an address, and the path of the folder in it; no request is sent yet.

    Args:
        address: like `s3://bucket/folder?endpoint_override=HOST:PORT&scheme=http`, or with another scheme of SCHEMES.
        flag: the flag of the address, for messages.

    Raises:
        UsageError: the address has a wrong form or contains credentials, which belong in the environment.
    """
    refuse_credentials(flag, address)
    try:
        parts = urlsplit(address)
        query = parse_qs(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise UsageError(f"{flag} {printable(address)}: {error}") from None
    plain = printable(address.partition("?")[0])
    if parts.scheme not in SCHEMES:
        raise UsageError(f"{flag} {plain}: the address must begin with one of {', '.join(SCHEMES)}")
    if parts.scheme == "s3" and (not parts.netloc or not set(query) <= set(S3_OPTIONS)):
        raise UsageError(
            f"{flag} {plain}: the address must be s3://BUCKET/FOLDER, then ? and any of {', '.join(S3_OPTIONS)}"
        )
    try:
        handler = _file_system(address)
    except (*FAULTS, ValueError) as error:
        raise UsageError(f"{flag} {plain}: {reason_of(error)}") from None
    return PyFileSystem(handler), handler.path


@lru_cache(maxsize=16)
def _file_system(address: str) -> "AddressedFileSystem":
    """One object per address, because each new one logs in again and a trial needs one at every epoch."""
    return AddressedFileSystem(address)


class AddressedFileSystem(FileSystemHandler):
    """A file system that is pickled as its address.

    Pyarrow's file systems pickle the credentials that they found, so these would be stored. Requests about files and
    folders are repeated after temporary errors. Code that reads or writes a file repeats the whole transfer, with
    `persistently`.
    """

    def __init__(self, address: str) -> None:
        """Prepare the file system of an address; it is opened at the first use."""
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
        """The scheme of the address."""
        return urlsplit(self.address).scheme

    def normalize_path(self, path: str) -> str:
        """As in pyarrow."""
        return str(self._inner.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """Type, size and time of each path."""
        return persistently(lambda: list(self._inner.get_file_info(paths)))

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """Type, size and time of the content of a folder."""
        return persistently(lambda: list(self._inner.get_file_info(selector)))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Create a folder; an object store does not need any."""
        if not shows_whole_files(self.address):
            self._inner.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        """Delete a folder and its content."""
        persistently(lambda: self._inner.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete the content of a folder."""
        persistently(lambda: self._inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        """Refused, because it would delete the whole store."""
        raise OSError("a whole store is not deleted")

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        persistently(lambda: self._inner.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        """Rename a file or folder."""
        self._inner.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file within the store."""
        self._inner.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        """Open a file for sequential reading."""
        return self._inner.open_input_stream(path, compression=None)

    def open_input_file(self, path: str) -> Any:
        """Open a file for random access."""
        return self._inner.open_input_file(path)

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> Any:
        """Open a file for writing."""
        return self._inner.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: dict[str, str] | None) -> Any:
        """Open a file for appending."""
        return self._inner.open_append_stream(path, compression=None, metadata=metadata)


def persistently(action: Callable[[], Result]) -> Result:
    """The result of an action, which is repeated with increasing pauses after temporary errors of the store.

    Raises:
        OSError: the error is not temporary, or lasts longer than PATIENCE_S.
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
    """A local folder with the content of the folder at an address; it is downloaded once, under a lock.

    If the size or time of any file changes, the data is downloaded again into another folder.

    Args:
        address: of the folder.
        parts: names of the files and folders to download, relative to the address; missing ones are skipped.
        root: the download goes to a folder in `root/fetched/`.
        flag: the flag of the address, for messages.

    Raises:
        UsageError: the address has a wrong form, or none of the parts exists.
        StoreError: the address cannot be read at the moment.
    """
    from filelock import FileLock

    filesystem, base = open_place(address, flag)
    base = base.rstrip("/")
    try:
        found = list_files(filesystem, [f"{base}/{part}" for part in parts])
    except FAULTS as error:
        raise StoreError(f"{flag} {printable(address)}: cannot be read ({reason_of(error)})") from None
    if not found:
        raise UsageError(f"{flag} {printable(address)}: contains none of {', '.join(parts)}")
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
        shutil.rmtree(half, ignore_errors=True)  # this process has the lock, so no other process is downloading
        half.mkdir()
        try:
            fetch_files(filesystem, base, found, half)
        except FAULTS as error:
            raise StoreError(f"{flag} {printable(address)}: cannot be downloaded ({reason_of(error)})") from None
        else:
            half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return target


def list_files(filesystem: FileSystem, paths: list[str]) -> list[FileInfo]:
    """The files at some paths, including those in folders; paths that do not exist are skipped.

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
    """Download files into a local folder, with their names relative to `base`.

    Raises:
        OSError: a file cannot be read or written, is incomplete, or its name leaves the folder.
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
            raise OSError(f"{printable(name)} has {place.stat().st_size} bytes here, but {info.size} in the store")

    with ThreadPoolExecutor(STREAMS) as pool:
        for _ in pool.map(fetch, files):
            pass


def send_folder(filesystem: FileSystem, folder: Path, path: str) -> None:
    """Copy a local folder to a store, and check that all files arrived.

    This does not use pyarrow's function for copying folders, which ignores errors in the middle of a file.

    Raises:
        OSError: a file is missing or incomplete.
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
