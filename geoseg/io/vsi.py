"""Files on other machines, through GDAL's file system: state, bytes, listings.

rasterio opens rasters only. What is missing is called in the very library that it is
linked to, so that settings, credentials and caches are the same.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import rasterio._base

from geoseg.errors import SceneAccessError, SceneError
from geoseg.io.gdal import gdal_env
from geoseg.io.location import REMOTE, is_remote, shown, without_secrets

_CHUNK = 1 << 20

_STRINGS = ctypes.POINTER(ctypes.c_char_p)

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.gz|gz|7z|kmz)(?=[/}]|$)", re.I)
"""Where the name of an archive ends that a file lies in."""

_opened: dict[str, str] = {}
"""State that each remote file had when it was last opened in this process."""


def remote_state(name: str) -> str:
    """Return what tells a remote file from another one under its name.

    Its ETag, else its time of change, and its size: one request.

    Raises:
        SceneError: It does not answer, or is not there.
    """
    headers = _headers(_outermost(name))
    size = headers.get("content-range", "").rpartition("/")[2]
    size = size or headers.get("content-length", "")
    changed = headers.get("etag") or headers.get("last-modified", "")
    return f"{size} {changed}"


def read_chunks(name: str) -> Iterator[bytes]:
    """Read a whole file, here or elsewhere.

    Raises:
        SceneError: It cannot be read to its end.
    """
    library = _library()
    with gdal_env():
        library.VSIErrorReset()
        file = library.VSIFOpenL(_bytes(name), b"rb")
        if not file:
            raise _unreadable(name)
        try:
            library.VSIFSeekL(file, 0, os.SEEK_END)
            left = library.VSIFTellL(file)
            library.VSIFSeekL(file, 0, os.SEEK_SET)
            while chunk := _read(file):
                left -= len(chunk)
                yield chunk
            if left:
                raise _unreadable(name)
        finally:
            library.VSIFCloseL(file)


def read_bytes(name: str) -> bytes:
    """Return the content of a small file, here or elsewhere, as it is now.

    Raises:
        SceneError: It cannot be read.
    """
    if is_remote(name):
        forget(name)
    return b"".join(read_chunks(name))


def fetch_start(name: str) -> None:
    """Let GDAL keep the start of a remote file, where its header is.

    Unlike rasterio's own opening this may be done by several threads while others catch
    warnings, which are those of the process. What fails is told when it is opened.
    """
    library = _library()
    with gdal_env():
        file = library.VSIFOpenL(_bytes(name), b"rb")
        if file:
            library.VSIFReadL(ctypes.create_string_buffer(1), 1, 1, file)
            library.VSIFCloseL(file)
        else:
            forget(name)


def list_folder(name: str) -> list[str]:
    """Return the names of all files below a folder of an object store, sorted.

    Raises:
        SceneError: It does not answer.
    """
    library = _library()
    with gdal_env():
        forget(name)
        library.VSIErrorReset()
        listed = library.VSIReadDirRecursive(_bytes(name))
        if not listed and library.VSIGetLastErrorMsg():
            raise _unreadable(name)
        below = _take(listed)
    return sorted(f"{name.rstrip('/')}/{path}" for path in below if path[-1:] != "/")


def renew(name: str) -> str:
    """Drop what GDAL keeps of a remote file unless it is what it was the last time.

    A file that was replaced since would otherwise be read as it was. Call it before one
    is opened.

    Returns:
        Its `remote_state`.

    Raises:
        SceneError: It does not answer, or is not there.
    """
    state = remote_state(name)
    if _opened.get(name) != state:
        forget(name)
        _opened[name] = state
    return state


def forget(name: str) -> None:
    """Drop what GDAL keeps of a remote file."""
    _library().VSICurlPartialClearCache(_bytes(_outermost(name)))


def _headers(name: str) -> dict[str, str]:
    """Ask a server what it says of a file; keys are lower case."""
    library = _library()
    with gdal_env():
        library.VSIErrorReset()
        lines = _take(library.VSIGetFileMetadata(_bytes(name), b"HEADERS", None))
        if not lines:
            raise _unreadable(name)
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _outermost(name: str) -> str:
    """Return the remote file that a name means, or that an archive in it is."""
    match = REMOTE.search(name)
    if match is None or match.start() == 0:
        return name
    inner = name[match.start() :]
    end = _ARCHIVE.search(inner)
    return inner[: end.end()] if end else inner


def _unreadable(name: str) -> SceneError:
    message = _library().VSIGetLastErrorMsg() or b"it is not there"
    reason = message.decode("utf-8", "replace").removeprefix("CURL error: ")
    hint = "check the path"
    if is_remote(name):
        hint = "check the address, the network and the credentials"
    return SceneAccessError(
        f"{shown(name)} cannot be read ({without_secrets(reason)}); {hint}"
    )


def _take(strings: Any) -> list[str]:  # noqa: ANN401 (a pointer of ctypes)
    """Copy a list of GDAL's and free it."""
    found: list[str] = []
    if strings:
        while (text := strings[len(found)]) is not None:
            found.append(text.decode("utf-8", "surrogateescape"))
        _library().CSLDestroy(strings)
    return found


def _read(file: int) -> bytes:
    buffer = ctypes.create_string_buffer(_CHUNK)
    count = _library().VSIFReadL(buffer, 1, _CHUNK, file)
    return buffer.raw[:count]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


@cache
def _library() -> ctypes.CDLL:
    """Return rasterio's GDAL: symbols are looked up in what the extension links to."""
    library = ctypes.CDLL(rasterio._base.__file__)
    text, handle, size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "CSLDestroy": (None, [_STRINGS]),
        "VSICurlPartialClearCache": (None, [text]),
        "VSIErrorReset": (None, []),
        "VSIFCloseL": (ctypes.c_int, [handle]),
        "VSIFOpenL": (handle, [text, text]),
        "VSIFReadL": (size, [handle, size, size, handle]),
        "VSIFSeekL": (ctypes.c_int, [handle, ctypes.c_uint64, ctypes.c_int]),
        "VSIFTellL": (ctypes.c_uint64, [handle]),
        "VSIGetFileMetadata": (_STRINGS, [text, text, _STRINGS]),
        "VSIGetLastErrorMsg": (text, []),
        "VSIReadDirRecursive": (_STRINGS, [text]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
