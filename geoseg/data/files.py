"""Labelled scenes in files: an image, and a mask or polygons for it."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyproj

from geoseg.data.classes import (
    IGNORE,
    UNKNOWN,
    ClassTable,
    MaskCoding,
    Unknown,
    check_known,
    pack,
    refuse_or_warn,
)
from geoseg.data.config import DataConfig, VectorConfig
from geoseg.data.labelled import LabelledPixels, digital_mean
from geoseg.errors import ConfigError, GeosegWarning, RadiometryError, SceneError
from geoseg.grid import Grid, Window
from geoseg.io.drawn import Shapes, read_shapes
from geoseg.io.gdal import gdal_env, open_dataset, scene_errors
from geoseg.io.labels import Mask, open_mask, read_mask
from geoseg.io.raster import Scene, SceneReader, open_scene
from geoseg.types import ModelSpec

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
"""Labels with these extensions are polygons."""

_SAME_PLACE = 0.01
"""Pixels by which corners of one grid may differ: what formats round away."""


class Labels(Protocol):
    """The labels of one scene; plain values, no open file."""

    def read(self, window: Window) -> tuple[npt.NDArray[np.uint8], Counter[str]]:
        """Return class indices of a window, and what has no meaning, by pixels."""


@dataclass(frozen=True, slots=True)
class MaskLabels:
    """Labels that a mask holds."""

    mask: Mask
    coding: MaskCoding
    nodata_means: bool
    """The class table names the mask's nodata value, or the colour that it stands for:
    masks from many tools say nodata of 0, which is a class."""

    def read(self, window: Window) -> tuple[npt.NDArray[np.uint8], Counter[str]]:
        """Look the values or colours up; what the mask hides has no label."""
        coding = self.coding
        pixels, there, data = read_mask(self.mask, window, colored=coding.colored)
        labels = coding.labels(pixels)
        labels[~(there if self.nodata_means else data)] = IGNORE
        unknown = labels == UNKNOWN
        found = coding.count(pixels, unknown)
        labels[unknown] = IGNORE
        return labels, found


@dataclass(frozen=True, slots=True)
class ShapeLabels:
    """Labels that polygons give."""

    shapes: Shapes
    background: int
    """Class index of what no polygon covers, or `IGNORE`."""

    def read(self, window: Window) -> tuple[npt.NDArray[np.uint8], Counter[str]]:
        """Paint the polygons; what they mean was found out before."""
        return self.shapes.burn(window, self.background), Counter()


@dataclass(frozen=True, slots=True)
class FileScene:
    """A `LabelledSource` whose image is a file; it is opened for each read."""

    name: str
    scene: Scene
    labels: Labels
    unknown: Unknown
    mean: tuple[float, ...]
    """Mean per band, 0..1: what stands where there is no data."""

    @property
    def path(self) -> Path | None:
        """The image."""
        return Path(self.scene.path)

    @property
    def grid(self) -> Grid:
        """Grid of the file."""
        return self.scene.source

    @property
    def scale(self) -> float:
        """Digital number that means 1.0."""
        return self.scene.scale

    def read(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> LabelledPixels:
        """Read a window of image and labels."""
        labels = self.read_labels(window, unknown)
        values, valid = self.read_image(window, self.grid)
        labels[~valid] = IGNORE
        return LabelledPixels(values, labels, valid)

    def read_image(
        self, window: Window, grid: Grid
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
        """Read a window of the image, on its own grid or as inference resamples it.

        Args:
            window: Inside of `grid`.
            grid: `self.grid`, or that with larger pixels from the same corner on.

        Returns:
            Digital numbers (bands, height, width), float32 when resampled, those of the
            mean where there is no data; and where there is some (height, width).

        Raises:
            SceneError: It cannot be read.
        """
        with SceneReader(replace(self.scene, grid=grid)) as reader:
            pixels = reader.read(window)
        hidden = ~pixels.valid
        if hidden.any():
            # As `geoseg segment` does: the model is to learn what it will see.
            fill = digital_mean(self.mean, self.scale, pixels.values.dtype)
            pixels.values[:, hidden] = fill[:, None]
        return pixels.values, pixels.valid

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Read labels only."""
        labels, found = self.labels.read(window)
        if unknown is not None:
            unknown.update(found)
        elif self.unknown == "fail":
            check_known(found, labels.size, f"the labels of {self.name}")
        return labels


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image whose labels are of no interest."""

    name: str
    path: Path
    grid: Grid


def open_image_file(name: str, image: Path, config: DataConfig) -> ImageFile:
    """Look at an image only.

    Raises:
        SceneError: It cannot be read.
    """
    return ImageFile(name, image, _open_image(image, config).source)


def open_file_scene(
    name: str, image: Path, labels: Path, config: DataConfig
) -> FileScene:
    """Look at an image and its labels; reads no pixel.

    Args:
        name: Name of the scene.
        image: Any raster that GDAL opens.
        labels: A mask on the same grid, or a vector file.
        config: What they mean.

    Raises:
        SceneError: One cannot be read, or they do not belong together.
    """
    scene = _open_image(image, config)
    read: Labels
    if labels.suffix.lower() in VECTOR_SUFFIXES:
        read = _open_shapes(labels, scene.source, config.table, config.vector)
    else:
        mask = open_mask(labels)
        _check_same_grid(scene.source, mask.grid, image, labels)
        coding = _coding(config.table, mask)
        read = MaskLabels(mask, coding, coding.knows(_nodata(mask, coding.colored)))
    return FileScene(name, scene, read, config.unknown, config.mean)


def _open_image(path: Path, config: DataConfig) -> Scene:
    count = len(config.mean)
    names = ("red", "green", "blue") if count == 3 else tuple(map(str, range(count)))
    spec = ModelSpec(
        name="data",
        tile_size=1,
        patch_size=1,
        classes=(),
        bands=names,
        scale=(("uint8", 255.0),),
        mean=config.mean,
        std=config.std,
        resolution=None,
        weights_sha256="",
    )
    try:
        with warnings.catch_warnings():
            # Pictures without a place are what most data sets are made of.
            warnings.simplefilter("ignore", GeosegWarning)
            return open_scene(
                path,
                spec,
                resolution="native",
                bands=config.bands,
                scale=config.scale,
                nodata=config.nodata,
            )
    except RadiometryError as error:
        raise RadiometryError(
            f"{error} (in a recipe, these are data.bands, data.scale and data.nodata)"
        ) from error


def _coding(table: ClassTable, mask: Mask) -> MaskCoding:
    """Return how a mask is read: as the table says, else by how it is stored."""
    kind = table.declared_kind() or ("colors" if mask.bands >= 3 else "values")
    return table.coding(colored=kind == "colors")


def _nodata(mask: Mask, colored: bool) -> float | None:
    """Return what a mask says is nodata as its pixels are read: a value or a colour."""
    value = mask.nodata
    if value is None or not colored:
        return value
    if not mask.paletted:
        return pack((int(value),) * 3) if 0 <= value <= 255 else None
    with open_dataset(mask.path) as dataset, gdal_env(), scene_errors(mask.path):
        palette = dataset.colormap(1)
    places: dict[int, int] = {}
    for place, color in sorted(palette.items()):
        places.setdefault(pack(color[:3]), place)
    # Unused entries of a palette are black: nodata at one of them is no black class.
    return next((code for code, place in places.items() if place == value), None)


def _open_shapes(
    path: Path, grid: Grid, table: ClassTable, config: VectorConfig
) -> ShapeLabels:
    background = IGNORE
    if config.background is not None:
        background = table.index(config.background, "data.vector.background")
    unknown: Counter[str] = Counter()
    count = 0
    meaning = _meaning(table, config)

    def value_of(value: object) -> int:
        nonlocal count
        count += 1
        index = meaning(value)
        if index == UNKNOWN:
            unknown[repr(value)] += 1
            return IGNORE
        return index

    shapes = read_shapes(
        path, grid, value_of, layer=config.layer, column=config.class_column
    )
    refuse_or_warn(table.unknown, unknown, count, str(path), "polygons")
    return ShapeLabels(shapes, background)


def _meaning(table: ClassTable, config: VectorConfig) -> Callable[[object], int]:
    if config.class_column is not None and config.class_name is not None:
        raise ConfigError(
            f"data.vector says that column {config.class_column} tells a polygon's "
            f"class, and that all are {config.class_name}; set class_column or "
            "class_name to null"
        )
    if config.class_column is None and config.class_name is None:
        raise ConfigError(
            "polygons need a class: set data.vector.class_column to the column that "
            "tells it, or data.vector.class_name where all are of one class"
        )
    if config.class_name is None:
        return table.of_attribute
    index = table.index(config.class_name, "data.vector.class_name")
    return lambda _: index


def _check_same_grid(image: Grid, mask: Grid, path: Path, labels: Path) -> None:
    """Refuse a mask that lies elsewhere, and say in what it differs."""
    differing = []
    if image.shape != mask.shape:
        differing.append(
            f"{mask.height} x {mask.width} pixels, not {image.height} x {image.width}"
        )
    # Many tools write masks without a place: then only their size can be compared.
    if image.crs is not None and mask.crs is not None:
        if not pyproj.CRS.from_wkt(image.crs).equals(
            pyproj.CRS.from_wkt(mask.crs), ignore_axis_order=True
        ):
            differing.append(
                f"CRS {_crs_name(mask.crs)}, not {_crs_name(image.crs)}",
            )
        elif (off := _offset(image, mask)) > _SAME_PLACE:
            differing.append(f"corners up to {off:.3g} pixels off")
    if differing:
        raise SceneError(
            f"the mask {labels} is on another grid than {path}: "
            f"{'; '.join(differing)}; warp it with gdalwarp -r near -te -ts -t_srs, or "
            "give its polygons as labels"
        )


def _offset(image: Grid, mask: Grid) -> float:
    """Return how far a corner lies from its place, in pixels of the image."""
    far = []
    for part in ((0, 0), (0, 1), (1, 0), (1, 1)):
        place = mask.transform @ (part[0] * mask.width, part[1] * mask.height)
        col, row = ~image.transform @ place
        far.append(
            math.hypot(col - part[0] * image.width, row - part[1] * image.height)
        )
    return max(far)


def _crs_name(wkt: str) -> str:
    crs = pyproj.CRS.from_wkt(wkt)
    code = crs.to_epsg()
    return crs.name if code is None else f"EPSG:{code}"
