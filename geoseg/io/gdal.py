"""How GDAL is set up, and how its errors become ours."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote
from xml.etree import ElementTree

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from geoseg.errors import SceneAccessError, SceneError
from geoseg.io.location import REMOTE, is_remote, shown, suffix_of, without_secrets

_OPTIONS = {
    # GDAL's default is 5 % of the machine's memory for each process: with several
    # workers that is not bounded by anything we state. 64 MB holds two rows of
    # 512-pixel blocks of a usual band's three 8-bit channels; of others some blocks are
    # decoded twice.
    # In bytes: rasterio hands it to GDAL as it is, where 64 is no cache at all.
    "GDAL_CACHEMAX": 64 << 20,
    # Listing a folder of 100 000 scenes on a network disk for each open is slow, so
    # sidecars are probed by name. EMPTY_DIR, the usual advice for COGs, would hide
    # .msk (mask), .aux.xml (nodata, CRS) and .tfw (transform), and change results.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # A server that does not answer, or stops to send, must not hold a run: 8 s to
    # connect, and for 8 kB. Requests that it asks to repeat are repeated twice.
    "GDAL_HTTP_CONNECTTIMEOUT": 8,
    "GDAL_HTTP_LOW_SPEED_TIME": 8,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,
    "GDAL_HTTP_MAX_RETRY": 2,
    "GDAL_HTTP_RETRY_DELAY": 1,
    # GDAL's quick way through a PNG does not notice that the file ends early, and fills
    # the rest with what lies in memory.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # A VRT may carry Python source; it must never run, whatever the environment says.
    "GDAL_VRT_ENABLE_PYTHON": "NO",
}

_DRIVERS = [
    "AAIGrid",
    "AIG",
    "BMP",
    "EHdr",
    "ENVI",
    "ERS",
    "GIF",
    "GPKG",
    "GRIB",
    "GTiff",
    "HDF4",
    "HDF4Image",
    "HDF5",
    "HDF5Image",
    "HFA",
    "JP2ECW",
    "JP2KAK",
    "JP2Lura",
    "JP2MrSID",
    "JP2OpenJPEG",
    "JPEG",
    "JPEGXL",
    "LIBERTIFF",
    "NITF",
    "netCDF",
    "PCIDSK",
    "PNG",
    "PNM",
    "RST",
    "SAGA",
    "VRT",
    "WEBP",
]
"""Drivers that may open a scene: none of them fetches pixels for a local file, as WMS,
WMTS, WCS, GTI or STACIT do already while they open a small text file of any name."""

_SOURCES = {"SourceFilename", "SourceDataset"}
"""Elements of a VRT that name a raster."""

_PATH_BEGINS = re.compile(r"^|://|/vsi\w+/|[,:{\"'=]")
_PATH_ENDS = re.compile(r"[/,:}\"'?&]|$")
"""What stands around paths in /vsizip/{a.gpkg}/b.tif, /vsisubfile/0_9,a.gpkg or
GPKG:"a.gpkg":b."""


def gdal_env() -> rasterio.Env:
    """Return the GDAL settings for one block of work in this thread.

    Those for networks are defaults: the environment's win.
    """
    options = {
        name: value
        for name, value in _OPTIONS.items()
        if not (name.startswith("GDAL_HTTP_") and name in os.environ)
    }
    return rasterio.Env(**options)


@contextmanager
def scene_errors(path: str) -> Iterator[None]:
    """Turn what GDAL raises on a broken file into a SceneError that names it.

    Raises:
        SceneAccessError: The file is missing, truncated, corrupt or no raster; or its
            disk or server failed, which GDAL tells in the same words.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        # GDAL quotes the address as it got it.
        reason = str(error.__cause__ or error).replace(path, shown(path)).rstrip(".")
        hint = "check it with gdalinfo, or fetch it again from its source"
        if is_remote(path):
            hint = "check the address, the network and the credentials"
        told = without_secrets(reason)
        raise SceneAccessError(
            f"{shown(path)} cannot be read: {told}; {hint}"
        ) from error


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn what GDAL raises on a disk that is full or gone into an OSError.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise OSError(
            errno.EIO, f"GDAL cannot write it ({reason})", str(path)
        ) from error


def open_dataset(path: str) -> DatasetReader:
    """Open a raster for reading; the caller closes it and stays in one thread.

    A local file reads local files only: a description of a remote service is refused,
    and so is a VRT that names one, before anything is fetched. What another machine
    sends is a VRT only where the name says so.

    Raises:
        SceneError: Missing, not a raster, or a description of a remote service.
    """
    file = Path(path)
    if _is_local(path) and not file.exists():
        raise SceneError(f"{path} does not exist; check the path")
    with gdal_env(), scene_errors(path), warnings.catch_warnings():
        # `open_scene` tells the same in words of ours, with what it means for areas.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        if file.is_file():
            _check_description(path, file.stat().st_mtime_ns)
        drivers = _DRIVERS
        if is_remote(path) and suffix_of(path) != ".vrt":
            drivers = [name for name in _DRIVERS if name != "VRT"]
        return _open(path, drivers)


class RasterReader:
    """A raster that is open from `with` to `close`; belongs to one thread at a time."""

    def __init__(self, path: str) -> None:
        """Keep the path; nothing is opened."""
        self._path = path
        self._dataset: DatasetReader | None = None

    @property
    def dataset(self) -> DatasetReader:
        """The open raster."""
        assert self._dataset is not None, "use the reader in a with statement"
        return self._dataset

    def __enter__(self) -> Self:
        """Open the file."""
        self._dataset = open_dataset(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None


# As in `rasterio.open`, which takes one driver only.
@ensure_env_with_credentials  # type: ignore[untyped-decorator]  # rasterio has no types
def _open(path: str, drivers: Sequence[str]) -> DatasetReader:
    return DatasetReader(path, driver=list(drivers))


@lru_cache(maxsize=1024)  # A scene is opened for each task; a VRT has many sources.
def _check_description(path: str, changed: int) -> None:
    """Refuse a local text file that makes GDAL read from another machine.

    Args:
        path: Local file; one that is no text is fine.
        changed: When it was, so that another file of this name is looked at anew.
    """
    pending, seen = [path], set[str]()
    while pending:
        description = pending.pop()
        if description in seen:
            continue
        seen.add(description)
        head = _head(description)
        if b"<VRTDataset" in head:
            pending += _sources(description)
        elif head.startswith(b"<"):
            raise SceneError(
                f"{path} only describes pixels that a remote service or other files "
                "hold; download or convert them first, for example with gdal_translate"
            )
        elif description != path:
            # GDAL opens what a VRT names with any driver, so it is tried before.
            _open(description, [name for name in _DRIVERS if name != "VRT"]).close()


def _sources(vrt: str) -> list[str]:
    """Return what a VRT reads, all of it on this machine."""
    try:
        elements = list(ElementTree.parse(vrt).iter())
    except ElementTree.ParseError as error:
        raise SceneError(
            f"{vrt} is no well-formed VRT ({error}); write it again with gdalbuildvrt"
        ) from error
    sources = [element for element in elements if element.tag in _SOURCES]
    names = [(element.text or "").strip() for element in sources]
    values = [value for element in elements for value in element.attrib.values()]
    values += [element.text or "" for element in elements]
    # `/vsicached?file=%2Fvsicurl...` is read as well.
    remote = [value for value in values if REMOTE.search(unquote(value))]
    # A URL, or a dataset spelt out in place of its name.
    remote += [name for name in names if "://" in name or "<" in name]
    if remote:
        raise SceneError(
            f"{vrt} reads {remote[0].strip()!r}, which is no file on this machine; "
            "download it first, for example with gdal_translate"
        )
    folder = Path(vrt).parent
    return [
        str(folder / name) if source.get("relativeToVRT") == "1" else name
        for source, name in zip(sources, names, strict=True)
        if name
    ]


def files_behind(dataset: DatasetReader) -> tuple[str, ...]:
    """Return all local files that a dataset is read from, those of VRTs in turn.

    GDAL names what a VRT reads, but neither what a VRT within it does nor the files
    that archives and subdatasets lie in.
    """
    found, pending = set[str](), [dataset.name, *dataset.files]
    while pending:
        for path in _files_in(pending.pop()) - found:
            found.add(path)
            if is_description(path):
                pending += _sources(path)
    return tuple(sorted(found))


def is_description(path: str) -> bool:
    """Tell a VRT, whatever its name, from other local files."""
    head = _head(path)
    # An archive may hold one that is not compressed.
    return head.startswith(b"<") and b"<VRTDataset" in head


def _files_in(name: str) -> set[str]:
    """Return the files whose paths a name for GDAL is or holds."""
    if os.path.isfile(name):  # noqa: PTH113 (a Path raises on names that are too long)
        return {name}
    parts = set[str]()
    for text in (name, unquote(name)):
        begins = {match.end() for match in _PATH_BEGINS.finditer(text)}
        ends = {match.start() for match in _PATH_ENDS.finditer(text)}
        parts |= {text[begin:end] for begin in begins for end in ends}
    return {part for part in parts if os.path.isfile(part)}  # noqa: PTH113 (as above)


def _head(path: str) -> bytes:
    """Return the start of a file; of what is none, as a subdataset, nothing."""
    if not Path(path).is_file():
        return b""
    with Path(path).open("rb") as stream:
        return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")


def absolute(path: str | Path) -> str:
    """Make a local path absolute: workers may run in another folder."""
    text = str(path)
    return str(Path(text).absolute()) if _is_local(text) else text


def _is_local(path: str) -> bool:
    """Tell a file path from a URL, a GDAL virtual path or a subdataset name."""
    return not path.startswith("/vsi") and ":" not in path.removeprefix(
        Path(path).drive
    )
