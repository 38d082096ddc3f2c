"""What chosen bands show, as the images themselves declare it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from geoseg.data.coarser import CoarserScene
from geoseg.data.files import FileScene
from geoseg.data.labelled import LabelledSource
from geoseg.errors import ConfigError
from geoseg.io.gdal import gdal_env, open_dataset
from geoseg.io.radiometry import colors_of, declared_colors

Kind = tuple[str, ...]
"""What each band of an image declares: ("red", "green", "blue", "undefined")."""


def kinds_of(scenes: Iterable[LabelledSource]) -> dict[Kind, str]:
    """Return the kinds of image that scenes have, each with the first that has it.

    Scenes in memory have none.

    Raises:
        SceneError: One cannot be read any more.
    """
    kinds: dict[Kind, str] = {}
    for scene in scenes:
        file = scene.source if isinstance(scene, CoarserScene) else scene
        if isinstance(file, FileScene):
            with gdal_env(), open_dataset(file.scene.path) as dataset:
                kinds.setdefault(declared_colors(dataset), file.name)
    return kinds


def check_alike(bands: Sequence[int], kinds: Mapping[Kind, str]) -> None:
    """Refuse images whose chosen bands show one thing here and another there.

    Args:
        bands: 1-based.
        kinds: Kinds of image, and what to call one that has it.

    Raises:
        ConfigError: A band is red in one and blue in another.
    """
    shown: dict[int, tuple[str, str]] = {}
    for kind, name in kinds.items():
        for band, color in zip(bands, colors_of(kind, bands), strict=True):
            if not color:
                continue
            other, first = shown.setdefault(band, (color, name))
            if other != color:
                raise ConfigError(
                    f"data.bands takes band {band} of all images, which {first} says "
                    f"is {other} and {name} says is {color}; bring their bands into "
                    "one order (gdal_translate -b), correct what they say "
                    f"(gdal_edit.py -colorinterp_{band}), or leave some out "
                    "(data.leave_out)"
                )


def contradicts(shown: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether bands show other colours than wanted; "" may be any.

    Args:
        shown: As `colors_of` has them.
        wanted: Alike, as many.
    """
    pairs = zip(shown, wanted, strict=True)
    return any(one and other and one != other for one, other in pairs)
