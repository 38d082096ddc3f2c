"""Features of patches: as colours (PCA), and how like they are to those of one place.

One basis for a whole scene: the covariance of its patches' features is summed up tile
by tile, so that neither pixels nor features of more than a band are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geoseg.blending.placing import place_tiles
from geoseg.blending.reference import blend_rows, divide
from geoseg.errors import ExplainError
from geoseg.explain.vit import ViT
from geoseg.grid import Window
from geoseg.inference import Predictor, TileInput
from geoseg.io.ahead import PixelsAhead
from geoseg.io.raster import Scene, SceneReader
from geoseg.tiling import Band, TileGrid

Floats = npt.NDArray[np.float32]

_SPREAD = 2.5
"""Standard deviations of a component, to each side of the mean, between 0 and 1."""

COMPONENTS = 3
"""Components of a picture: red, green and blue."""


@dataclass(frozen=True)
class Basis:
    """The directions in which the features of a scene differ most."""

    mean: npt.NDArray[np.float64]
    """Mean feature, shape (C,)."""
    components: npt.NDArray[np.float64]
    """Unit vectors by falling variance, shape (3, C); each has a positive largest
    entry, which makes its sign that of the features alone."""
    variances: npt.NDArray[np.float64]
    """Variance along each, shape (3,)."""
    total: float
    """Variance in all directions."""

    def colors(self, features: Tensor) -> Floats:
        """Project features, shape (C, h, w), to (3, h, w): 0..1 is mean -+ 2.5 sd."""
        flat = features.double().numpy().reshape(len(features), -1)
        along = self.components @ (flat - self.mean[:, None])
        spread = np.sqrt(np.maximum(self.variances, 1e-12))[:, None]
        colors = along / (2 * _SPREAD * spread) + 0.5
        shaped: Floats = colors.reshape(-1, *features.shape[1:]).astype(np.float32)
        return shaped


class Covariance:
    """Mean and covariance of features that come piece by piece.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979: sums of squares about the mean so far lose no digits.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._mean = np.zeros(channels)
        self._scatter = np.zeros((channels, channels))

    def add(self, features: npt.NDArray[np.floating]) -> None:
        """Add features, shape (n, C)."""
        if not len(features):
            return
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features - mean
        shift = mean - self._mean
        count = self.count + len(features)
        self._scatter += centred.T @ centred
        self._scatter += np.outer(shift, shift) * self.count * len(features) / count
        self._mean += shift * len(features) / count
        self.count = count

    def basis(self) -> Basis:
        """Return the first three components.

        Raises:
            ExplainError: There are less than two features, or they have less than
                three channels.
        """
        if self.count < 2 or len(self._mean) < COMPONENTS:
            raise ExplainError(
                f"{self.count} patches of {len(self._mean)} channels have no three "
                "components; choose a scene or window with more data"
            )
        covariance = self._scatter / (self.count - 1)
        variances, vectors = np.linalg.eigh(covariance)
        components = vectors[:, ::-1].T[:COMPONENTS]
        largest = np.abs(components).argmax(axis=1)
        signs = np.sign(components[np.arange(COMPONENTS), largest])
        return Basis(
            mean=self._mean.copy(),
            components=components * signs[:, None],
            variances=variances[::-1][:COMPONENTS],
            total=float(variances.sum()),
        )


class SceneFeatures:
    """Features of the patches of a scene, tile by tile.

    Args:
        scene: What to read.
        tiles: The tiles that it is segmented in.
        predictor: Normalises tiles; its device is where the ViT runs.
        vit: Gives the features: its patch tokens after the last norm.
    """

    def __init__(
        self, scene: Scene, tiles: TileGrid, predictor: Predictor, vit: ViT
    ) -> None:
        self.scene, self.tiles = scene, tiles
        self._predictor, self._vit = predictor, vit

    def of(self, images: Tensor) -> Tensor:
        """Return features of one image, (1, C, H, W) -> (D, rows, columns) float32."""
        with torch.inference_mode():
            return self._vit.features(images)

    def basis(self, done: Callable[[int], None]) -> Basis:
        """Sum the covariance up over all tiles and return the scene's basis.

        Args:
            done: Told of tiles that are done.

        Raises:
            ExplainError: The scene has too little data.
        """
        covariance: Covariance | None = None
        with SceneReader(self.scene) as reader:
            for band in self.tiles.bands(whole_rows=self.scene.by_rows):
                for _, features, weight in self._band(reader, band):
                    flat = features.flatten(1).T.numpy()
                    covariance = covariance or Covariance(flat.shape[1])
                    covariance.add(flat[weight.ravel()])
                done(len(band))
        return (covariance or Covariance(0)).basis()

    def blended(
        self, make: Callable[[Tensor], Floats], done: Callable[[int], None]
    ) -> Iterator[tuple[Window, Floats, npt.NDArray[np.bool_]]]:
        """Make maps of tiles, and blend them as logits are.

        Args:
            make: Turns features (D, rows, columns) into maps (K, rows, columns).
            done: Told of tiles that are done.

        Yields:
            Windows of the scene that share out what is tiled, their maps (K, height,
            width), and which pixels hold data and are wanted.
        """
        bands = self.tiles.bands(whole_rows=self.scene.by_rows)
        ready: dict[int, Mapping[tuple[int, int], Floats]] = {}
        last = {need: band.index for band in bands for need in band.needs}
        with SceneReader(self.scene) as reader:
            for band in bands:
                ready[band.index] = {
                    place: make(features)
                    for place, features, _ in self._band(reader, band)
                }
                if band.finishes:
                    maps = {k: v for need in band.needs for k, v in ready[need].items()}
                    yield from self._blend(reader, band, maps)
                for index in [i for i in ready if last.get(i, -1) <= band.index]:
                    del ready[index]
                done(len(band))

    def _blend(
        self,
        reader: SceneReader,
        band: Band,
        maps: Mapping[tuple[int, int], Floats],
    ) -> Iterator[tuple[Window, Floats, npt.NDArray[np.bool_]]]:
        placement = place_tiles(
            maps, self.tiles, band.output, window="hann", space="logits"
        )
        if not maps:
            return
        for window, totals, weights in blend_rows(placement, "logits"):
            yield window, divide(totals, weights), reader.read(window).keep

    def _band(
        self, reader: SceneReader, band: Band
    ) -> Iterator[tuple[tuple[int, int], Tensor, npt.NDArray[np.bool_]]]:
        """Yield tiles of a band that hold data: place, features, patches that count."""
        size = self.tiles.tile_size
        with PixelsAhead(reader, band.footprint, size) as pixels:
            for place in band.tiles:
                inside = self.tiles.tile(*place).intersection(band.footprint)
                assert inside is not None, "a tile lies in its band's footprint"
                tile = pixels.get(inside)
                if not tile.keep.any():
                    continue
                images = self._predictor.images(
                    [TileInput(tile.values, tile.valid)], self.scene.scale
                )
                features = self.of(images)
                yield place, features, _counted(tile.keep, size, features.shape[1:])


def similarity_to(reference: Tensor) -> Callable[[Tensor], Floats]:
    """Return what compares features with one of them, by the cosine between them.

    Args:
        reference: Feature of the place, shape (D,).

    Returns:
        Turns features (D, rows, columns) into a map (1, rows, columns), -1..1.
    """
    unit = reference / reference.norm().clamp_min(1e-12)

    def compare(features: Tensor) -> Floats:
        norms = features.norm(dim=0).clamp_min(1e-12)
        cosine = torch.einsum("d,dhw->hw", unit, features) / norms
        similar: Floats = cosine[None].numpy().astype(np.float32)
        return similar

    return compare


def _counted(
    keep: npt.NDArray[np.bool_], size: int, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Return the patches that are at least half wanted pixels with data."""
    rows, cols = shape
    whole = np.zeros((size, size), np.float32)
    whole[: keep.shape[0], : keep.shape[1]] = keep
    shares = whole.reshape(rows, size // rows, cols, size // cols).mean(axis=(1, 3))
    return np.asarray(shares >= 0.5)
