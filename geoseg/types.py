"""Closed sets and plain values shared by every layer; imports nothing heavy."""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass
from typing import Literal

NODATA = 255
"""Class mask and confidence value of a pixel that holds no data."""

BlendWindow = Literal["hann", "linear", "none"]
"""Weight of a pixel within its tile; `none` takes the tile whose centre is nearest."""

BlendSpace = Literal["logits", "probabilities"]
"""What overlapping tiles average: class logits, or their softmax."""

OnError = Literal["skip", "fail"]
"""What a run does when a scene fails: go on with the others, or end."""

EvaluatedPart = Literal["auto", "test", "validation", "train", "all"]
"""Part of a split that is evaluated on; `auto` is the first of them with scenes."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""Arithmetic of the model; `auto` is bfloat16 on CUDA and float32 elsewhere."""

Codec = Literal["zstd", "deflate"]
"""Compression of rasters; every GeoTIFF reader knows deflate."""

_UNWRITABLE = re.compile(
    "[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
)
"""Characters that XML cannot hold: most control characters, lone surrogates."""


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class as it appears in class masks, legends and polygons."""

    id: int
    """Value in the class mask, 0..254."""
    name: str
    """Name shown in legends and attribute tables."""
    color: tuple[int, int, int]
    """Red, green, blue, each 0-255."""


@dataclass(frozen=True, slots=True)
class ChosenBands:
    """Bands that a training took of its images."""

    numbers: tuple[int, ...]
    """1-based, in the model's order."""
    of: tuple[tuple[str, ...], ...]
    """What all bands of such images declare, one for each kind of image: ("red",
    "green", "blue", "undefined")."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model declares about its inputs and outputs; no weights."""

    name: str
    """Name for reports: the folder's name or the hub id."""
    tile_size: int
    """Side of the model input, pixels."""
    patch_size: int
    """Tile sizes must be a multiple of this many pixels."""
    classes: tuple[ClassInfo, ...]
    """Classes in the order of the logits' channels."""
    bands: tuple[str, ...]
    """Names of the input bands, in order."""
    scale: tuple[tuple[str, float], ...]
    """Per accepted dtype, the digital number that means 1.0: (("uint8", 255.0),)."""
    mean: tuple[float, ...]
    """Mean per band after scaling, 0..1."""
    std: tuple[float, ...]
    """Standard deviation per band after scaling."""
    resolution: float | None
    """Ground resolution the model was trained at, metres per pixel; None if unknown."""
    weights_sha256: str
    """Hash of weights and configuration, hexadecimal."""
    chosen: ChosenBands | None = None
    """Bands that it gets of images like those it was trained on; None: all."""


@dataclass(frozen=True, slots=True)
class StacSource:
    """The STAC item that a scene was given as, as far as results tell of it."""

    id: str
    """Its id."""
    collection: str | None
    """Id of its collection."""
    href: str
    """Where it is: its own link, else where it was read; without what signs a
    request."""
    times: tuple[tuple[str, str], ...]
    """When the image was taken, ISO 8601 in UTC: "datetime", or "start_datetime" and
    "end_datetime"; nothing if it does not say."""


def distinct_color(index: int) -> tuple[int, int, int]:
    """Return a colour that differs from its neighbours': hues by the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1.0, 0.55, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def unwritable(text: str) -> str | None:
    """Return the first character that no style or legend in XML can hold, if any."""
    found = _UNWRITABLE.search(text)
    return None if found is None else found[0]


def writable(text: str) -> str:
    """Put a replacement character where one is that XML cannot hold."""
    return _UNWRITABLE.sub("\ufffd", text)
