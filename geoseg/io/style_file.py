"""QGIS styles (QML) beside files that cannot hold one; a user's own is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from geoseg.io.atomic import atomic_path

_MARK = "\n<!-- Made by geoseg, which replaces it for as long as it is unchanged: "
"""Begins the last line of a style's file; the digest of what is above follows."""

_SHARING = (".tif", ".vrt", ".fgb", ".parquet")
"""Files of one name that open with one style."""


def style_beside(path: Path) -> Path:
    """Return where QGIS looks for the style of a file."""
    return path.with_suffix(".qml")


def marked(qml: str) -> str:
    """Return a style as a file of its own, marked as geoseg's.

    QGIS drops the mark, a comment, when a user saves the style again; other editors
    leave it, but not the digest right.
    """
    return f"{qml}{_MARK}{_digest(qml)} -->\n"


def is_own_style(content: str) -> bool:
    """Tell whether a file is just what `marked` once gave, for any style."""
    text, _, rest = content.rpartition(_MARK)
    return rest == f"{_digest(text)} -->\n"


def is_users_style(style: Path) -> bool:
    """Tell whether something else than a style of geoseg has that name.

    A link is a user's wherever it points: geoseg makes none, and other files may share
    what is there.
    """
    if style.is_symlink():
        return True
    try:
        return not is_own_style(style.read_bytes().decode(errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # A folder, say.
        return True


def serves_raster(style: Path) -> bool:
    """Tell whether a style of geoseg is that of a raster of the same name, as well."""
    if is_users_style(style) or not style.exists():
        return False
    rasters = (style.with_suffix(suffix) for suffix in (".tif", ".vrt"))
    return "<rasterrenderer" in style.read_text(encoding="utf-8") and any(
        raster.exists() for raster in rasters
    )


def write_style(path: Path, qml: str) -> None:
    """Write the style that a file opens with; one that is a user's is left alone.

    Raises:
        OSError: It cannot be written.
    """
    style = style_beside(path)
    if not is_users_style(style):
        with atomic_path(style) as temporary:
            temporary.write_text(marked(qml), encoding="utf-8")


def remove_style(path: Path) -> None:
    """Remove the style of a file that is gone, unless a user or another file has it."""
    style = style_beside(path)
    others = (path.with_suffix(suffix) for suffix in _SHARING)
    if not is_users_style(style) and not any(other.exists() for other in others):
        style.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
