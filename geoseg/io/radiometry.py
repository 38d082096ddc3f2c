"""Which bands of a dataset a model gets, in which dtype, and which of them is alpha."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from geoseg.errors import RadiometryError, UsageError
from geoseg.types import ChosenBands, ModelSpec

RGB = ("red", "green", "blue")
"""What three bands are that nobody chose."""

_NO_COLORS = ("undefined", "gray", "palette", "alpha")
"""What bands declare that say nothing of what they show: near infrared may be called
alpha, and the first of any number is gray."""


def choose_bands(
    dataset: DatasetReader, spec: ModelSpec, bands: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the 1-based bands that the model gets, in its order.

    Without `bands` the dataset must have exactly the model's bands, an alpha band
    apart: guessing which of more bands is red would give wrong classes in silence.

    Bands that declare the model's names as their colours come in its order. A model
    that was trained on chosen bands gets the same of images that declare the same.

    Raises:
        RadiometryError: The bands are not there, or not the number the model takes.
        UsageError: `bands` is wrong for every scene.
    """
    wanted = len(spec.bands)
    if bands is not None:
        return _check_bands(dataset, spec, tuple(bands))
    if spec.chosen is not None:
        return _as_trained(dataset, spec, spec.chosen)
    colors, data = dataset.colorinterp, data_bands(dataset)
    if len(data) == wanted and len(colors) - len(data) <= 1:
        return _by_color(data, [colors[band - 1].name for band in data], spec)
    example = tuple(min(i, max(dataset.count, 1)) for i in range(1, wanted + 1))
    hint = f"pass --bands, for example --bands {','.join(map(str, example))}"
    if colors and colors[0] == ColorInterp.palette:
        hint = "expand its palette first with gdal_translate -expand rgb"
    raise RadiometryError(
        f"{dataset.name} has {_describe_bands(colors)}, and model {spec.name} takes "
        f"{wanted} ({', '.join(spec.bands)}); {hint}"
    )


def choose_scale(
    dataset: DatasetReader,
    spec: ModelSpec,
    bands: tuple[int, ...],
    scale: float | None,
) -> tuple[str, float]:
    """Return the dtype of the bands and the digital number that means 1.0.

    Raises:
        RadiometryError: The bands are complex, of several dtypes, or of one that the
            model does not declare while no scale is given.
    """
    dtypes = sorted({dataset.dtypes[band - 1] for band in bands})
    if len(dtypes) > 1:
        raise RadiometryError(
            f"{dataset.name} mixes {' and '.join(dtypes)} bands; convert it to one "
            "dtype first, for example with gdal_translate -ot"
        )
    dtype = dtypes[0]
    if dtype.startswith("complex"):
        raise RadiometryError(
            f"{dataset.name} has {dtype} pixels; convert it to real numbers first, for "
            "example to amplitude"
        )
    if scale is not None:
        return dtype, _check_scale(scale)
    declared = dict(spec.scale)
    if dtype not in declared:
        raise RadiometryError(
            f"{dataset.name} has {dtype} pixels, and model {spec.name} declares "
            f"{', '.join(declared)}; pass the number that means 1.0 with --scale, for "
            "example --scale 10000 for reflectance times 10000"
        )
    return dtype, float(declared[dtype])


def choose_nodata(
    dataset: DatasetReader, bands: tuple[int, ...], nodata: float | None
) -> float | None:
    """Return the value that hides a pixel where all bands hold it, or None.

    Raises:
        RadiometryError: The bands declare different values.
    """
    if nodata is not None:
        return float(nodata)
    values = {dataset.nodatavals[band - 1] for band in bands}
    # NaN differs from itself, and set() would keep several of them.
    values = {"nan" if v is not None and math.isnan(v) else v for v in values}
    if len(values) > 1:
        raise RadiometryError(
            f"{dataset.name} has bands with different nodata values "
            f"({', '.join(sorted(map(str, values)))}); pass one with --nodata"
        )
    value = values.pop()
    return None if value is None else float(value)


def declared_colors(dataset: DatasetReader) -> tuple[str, ...]:
    """Return what each band says it shows: red, alpha, undefined."""
    return tuple(color.name for color in dataset.colorinterp)


def data_bands(dataset: DatasetReader) -> tuple[int, ...]:
    """Return the 1-based bands that are no alpha band."""
    colors = enumerate(dataset.colorinterp, start=1)
    return tuple(index for index, color in colors if color != ColorInterp.alpha)


def alpha_band(dataset: DatasetReader, bands: tuple[int, ...]) -> int | None:
    """Return the 1-based alpha band; one that the user reads as data is none."""
    for index, color in enumerate(dataset.colorinterp, start=1):
        if color == ColorInterp.alpha and index not in bands:
            return index
    return None


def _by_color(
    data: tuple[int, ...], colors: Sequence[str], spec: ModelSpec
) -> tuple[int, ...]:
    """Order bands that declare exactly the model's colours as it takes them: BGR."""
    if sorted(colors) != sorted(spec.bands) or len(set(colors)) < len(colors):
        return data
    return tuple(data[colors.index(name)] for name in spec.bands)


def colors_of(kind: Sequence[str], bands: Sequence[int]) -> tuple[str, ...]:
    """Return the colour that each of some bands is said to show; "" if none is.

    Args:
        kind: What all bands of an image declare.
        bands: 1-based.
    """
    declared = [kind[band - 1] if band <= len(kind) else "" for band in bands]
    return tuple("" if color in _NO_COLORS else color for color in declared)


def band_names(
    bands: Sequence[int] | None, count: int, kinds: Iterable[Sequence[str]] = ()
) -> tuple[str, ...]:
    """Return what a model declares that is trained on bands of its images.

    Chosen bands are named by what the images declare, if that comes out as red, green,
    blue in this order. Where nothing is declared nobody knows: bands 3, 2, 1 may be
    infrared, red, green. And who turns red, green, blue around may do so because the
    images are wrong about themselves: files of 8 bits declare it whatever they hold.

    Args:
        bands: Their 1-based numbers, where some were chosen.
        count: How many they are.
        kinds: What all bands of the images declare, one for each kind of image, which
            do not contradict each other.
    """
    if bands is None and count == len(RGB):
        return RGB
    numbers = bands or range(1, count + 1)
    names = [f"band {number}" for number in numbers]
    for kind in kinds:
        declared = colors_of(kind, numbers)
        natural = [color for color in declared if color in RGB]
        if natural != sorted(set(natural), key=RGB.index):
            return tuple(f"band {number}" for number in numbers)
        names = [color or name for color, name in zip(declared, names, strict=True)]
    return tuple(names)


def _as_trained(
    dataset: DatasetReader, spec: ModelSpec, chosen: ChosenBands
) -> tuple[int, ...]:
    """Return the bands that a training took of images like this one.

    Raises:
        RadiometryError: It is of another kind, and declares no colours of the model's.
    """
    data, colors = data_bands(dataset), declared_colors(dataset)
    if colors in chosen.of and max(chosen.numbers) <= dataset.count:
        return chosen.numbers
    named = [colors[band - 1] for band in data]
    if sorted(named) == sorted(spec.bands):
        return _by_color(data, named, spec)
    numbers = ",".join(map(str, chosen.numbers))
    raise RadiometryError(
        f"{dataset.name} has the bands {', '.join(colors)}, and model {spec.name} was "
        f"trained on bands {numbers} of images with "
        f"{' or '.join(', '.join(kind) for kind in chosen.of)}; pass the bands of the "
        "same colours with --bands"
    )


def _check_bands(
    dataset: DatasetReader, spec: ModelSpec, bands: tuple[int, ...]
) -> tuple[int, ...]:
    """Check band numbers that the user gave."""
    if len(bands) != len(spec.bands):
        raise UsageError(
            f"--bands names {len(bands)} bands, and model {spec.name} takes "
            f"{len(spec.bands)} ({', '.join(spec.bands)}); name one for each"
        )
    if min(bands) < 1:
        raise UsageError(f"there is no band {min(bands)}; --bands counts from 1")
    missing = [band for band in bands if band > dataset.count]
    if missing:
        raise RadiometryError(
            f"{dataset.name} has no band {missing[0]}, only 1 to {dataset.count}; "
            "change --bands"
        )
    return bands


def _check_scale(scale: float) -> float:
    """Check a scale that the user gave."""
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(
            f"a scale of {scale} is not a positive number; pass the digital number "
            "that means 1.0, for example --scale 255"
        )
    return float(scale)


def _describe_bands(colors: Sequence[ColorInterp]) -> str:
    """Say how many bands there are, and whether one is alpha."""
    count = len(colors)
    text = f"{count} band" if count == 1 else f"{count} bands"
    alpha = sum(color == ColorInterp.alpha for color in colors)
    return f"{text}, {alpha} of them alpha" if alpha else text
