"""Rasters in what users name: files, patterns, folders, here and in object stores."""

from __future__ import annotations

import fnmatch
import glob
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from geoseg.errors import SceneError, UsageError
from geoseg.io.location import is_listed, is_virtual, shown, suffix_of, tree_parts
from geoseg.io.vsi import list_folder
from geoseg.layout import RESULT_RASTERS, ROOT_FILE, WORK

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")
"""What counts as a scene in a folder, lower case."""

_PATTERN = re.compile(r"[*?\[]")


def expand(name: str) -> list[str]:
    """Return the files that a path, a pattern or a folder stands for, in its order.

    Whether a file of another machine is there is not asked: that may take a while, and
    then it is one scene that fails.

    Args:
        name: A path, or a name of GDAL's own (/vsi...).

    Raises:
        UsageError: There is none.
    """
    if is_virtual(name):
        return _listed(name) if is_listed(name) else [name]
    path = Path(name)
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.is_file():
            return [located(path)]
        return _matching(path)
    except OSError as error:  # A name too long, a folder that cannot be listed.
        raise UsageError(f"{path}: {error.strerror}; check the path") from error


def is_folder(name: str) -> bool:
    """Tell a folder, here or in an object store, from a file or a pattern."""
    if is_listed(name):
        # A key without an extension is no raster's; a bucket may have dots.
        return (
            name.endswith("/")
            or len(tree_parts(name)) <= 2
            or not (suffix_of(name) or _PATTERN.search(name))
        )
    try:
        return not is_virtual(name) and Path(name).is_dir()
    except OSError:
        return False


def _listed(name: str) -> list[str]:
    """List a folder of an object store, or what matches a pattern there."""
    pattern = _PATTERN.search(name)
    if pattern is None and not is_folder(name):
        return [name]
    folder = posixpath.dirname(name[: pattern.start()]) if pattern else name
    if tree_parts(folder)[-1].endswith("//"):
        raise UsageError(f"{shown(name)} names no bucket; begin with one")
    try:
        files = list_folder(folder)
    except SceneError as error:
        raise UsageError(str(error)) from error
    if pattern:
        found = [file for file in files if _matches(file, name)]
    else:
        found = [file for file in files if suffix_of(file) in SUFFIXES]
    if not found:
        raise UsageError(
            f"{shown(name)} lists no scene ({', '.join(SUFFIXES)}); check the address "
            "and the credentials, or name files in a manifest"
        )
    return found


def _matches(file: str, pattern: str) -> bool:
    """Match part by part: `*` stays in its folder, `**` does not."""
    parts, wanted = file.split("/"), pattern.split("/")
    if "**" in wanted:
        regex = fnmatch.translate(pattern.replace("**/", "*"))
        return re.match(regex, file) is not None
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _in_folder(path: Path) -> list[str]:
    # Folders are resolved, files are not: a link in an archive has the archive's name.
    folder = path.resolve()
    found = [
        file
        for file in sorted(_walk(folder))
        if file.suffix.lower() in SUFFIXES and file.is_file() and not _is_result(file)
    ]
    if not found:
        raise UsageError(f"{path} holds no scene ({', '.join(SUFFIXES)})")
    return [str(file) for file in found]


def _walk(folder: Path) -> Iterator[Path]:
    """Give all files below a folder, through links too, each real folder once.

    Folders come before links to folders, so that what lies in the archive keeps its
    name, and a link that leads back ends there.
    """
    seen, linked = set[str](), [folder]
    while linked:
        top = linked.pop(0)
        for path, names, files in os.walk(top, onerror=_raise):
            names.sort()
            real = os.path.realpath(path)
            if real in seen:
                names.clear()
                continue
            seen.add(real)
            here = Path(path)
            linked += [here / name for name in names if (here / name).is_symlink()]
            yield from (here / file for file in files)


def _raise(error: OSError) -> None:
    """Refuse a folder that cannot be listed: its scenes would be missing in silence."""
    raise UsageError(
        f"{error.filename} cannot be searched ({error.strerror}); change its "
        "permissions, or name files in a manifest"
    ) from error


def _matching(path: Path) -> list[str]:
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute)
    files = [Path(match) for match in matches if Path(match).is_file()]
    found = [located(file) for file in files if not _is_result(file.absolute())]
    if found:
        return found
    if not matches:
        raise UsageError(f"{path} does not exist; check the path")
    if all(map(os.path.isdir, matches)):
        raise UsageError(f"{path} matches folders only; name files, as in {path}/*.tif")
    raise UsageError(
        f"{path} is no file to read, or a link that leads to none; check where it leads"
    )


def _is_result(file: Path) -> bool:
    """Tell a mask from a scene: OUT may lie in the archive, or be the archive."""
    if file.name not in RESULT_RASTERS and WORK not in file.parts:
        return False
    return any((folder / WORK / ROOT_FILE).is_file() for folder in file.parents)


def located(file: Path) -> str:
    """Return where a file lies, by which its results are known.

    Links to folders are followed; a link to a file is a scene of its own.
    """
    return str(file.parent.resolve() / file.name)
