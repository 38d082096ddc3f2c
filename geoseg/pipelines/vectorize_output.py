"""Where `geoseg vectorize` writes, and what it must not replace there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from geoseg.errors import OutputError, UsageError
from geoseg.io.class_raster import ClassRaster
from geoseg.io.gdal import absolute
from geoseg.io.style_file import is_users_style, serves_raster
from geoseg.io.vector import SUFFIXES, style_path


def choose_output(
    given: Path | None,
    raster: str,
    others: Mapping[str, str | Path | None],
    *,
    overwrite: bool,
) -> Path:
    """Return the file that polygons go to, links followed.

    Args:
        given: What the user asked for; None: beside the raster, as a GeoPackage.
        raster: The class raster as the user named it.
        others: More inputs by what they are; None where there is none.
        overwrite: Whether a file may be replaced.

    Raises:
        UsageError: Nothing can or may be written there.
    """
    inputs = {"raster": raster, **others}
    for what, path in inputs.items():
        if path is not None:
            _check_input(what, str(path))
    if given is None:
        given = Path(raster).with_suffix(SUFFIXES[0])
    _check_name(given)
    # A link stays one: what it points to is replaced.
    out = Path(os.path.realpath(given))
    for what, path in inputs.items():
        if path is not None and _is_same(out, str(path)):
            raise OutputError(
                f"{given} is the {what} itself; choose another -o, or it would be lost"
            )
    if out.suffix.lower() != given.suffix.lower():
        raise OutputError(
            f"{given} is a link to {out}, whose name ends otherwise; choose another -o"
        )
    _check_place(given, out)
    _check_replaced(out, overwrite=overwrite)
    return out


def check_not_a_source(out: Path, raster: ClassRaster) -> None:
    """Refuse to replace what a raster is read from, a VRT's source, say.

    Raises:
        OutputError: `out` is such a file.
    """
    if any(_is_same(out, name) for name in raster.files):
        raise OutputError(
            f"{raster.path} is read from {out}; choose another -o, or it would be lost"
        )


def _check_input(what: str, path: str) -> None:
    """Refuse what names no file on any system, before anything is looked up."""
    if not Path(path).name:
        raise UsageError(f"{path!r} names no file; give the file of the {what}")
    if "\0" in path:
        raise UsageError(
            f"the name of the {what} {path!r} holds a null character; give its path"
        )
    text = _shown(absolute(path))
    if "\ufffd" in text:
        raise UsageError(
            f"the path of the {what} {text!r} holds bytes that are not UTF-8, and "
            "libraries cannot read it; rename it"
        )


def _check_name(given: Path) -> None:
    """Refuse names that tell no format, or that the libraries cannot write to."""
    if given.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{given} does not tell a format; end -o in {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}"
        )
    text = _shown(str(given.absolute()))
    if "\ufffd" in text or any(ord(letter) < 32 for letter in text):
        raise UsageError(
            f"the path {text!r} holds line breaks, control characters or bytes that "
            "are not UTF-8, and libraries cannot write to it; choose another -o"
        )


def _shown(path: str) -> str:
    """Return a path with the character U+FFFD for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def _is_same(out: Path, path: str) -> bool:
    return out.exists() and Path(path).exists() and out.samefile(path)


def _check_place(given: Path, out: Path) -> None:
    """Refuse folders, and files in folders that are missing or closed."""
    if not out.parent.is_dir():
        raise OutputError(
            f"there is no folder {out.parent} to write {out.name} to; make it, or "
            "choose another -o"
        )
    if out.is_dir():
        raise OutputError(f"{given} is a folder; name a file with -o")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{out.parent} cannot be written to; choose another -o")


def _check_replaced(out: Path, *, overwrite: bool) -> None:
    """Refuse to replace files unasked: the polygons, and geoseg's style of them."""
    style = style_path(out)
    kept = style is None or is_users_style(style) or serves_raster(style)
    replaced = [out] if kept or style is None else [out, style]
    for file in replaced:
        if file.exists() and not overwrite:
            raise OutputError(
                f"{file} is there already; pass --overwrite to replace it, or choose "
                "another -o"
            )
