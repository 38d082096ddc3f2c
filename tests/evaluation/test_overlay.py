"""Labels are read on the mask's grid, and only where they lie on the same ground."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS

from geoseg.errors import SceneError
from geoseg.evaluation import overlay
from geoseg.evaluation.overlay import Overlay
from geoseg.grid import Grid, Window

UTM = CRS.from_epsg(32631).to_wkt(version="WKT2_2019")
LABELS = Grid(60, 90, Affine(0.5, 0, 1000, 0, -0.5, 2000), UTM)
PIXELS = np.random.default_rng(0).integers(0, 9, LABELS.shape).astype(np.uint8)


def read(window: Window) -> npt.NDArray[np.uint8]:
    assert LABELS.whole.contains(window)
    return PIXELS[window.slices]


@pytest.mark.parametrize("most", [1 << 24, 7])
def test_labels_nearest_to_a_pixels_centre_are_taken(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(overlay, "_MOST_PIXELS", most)
    mask = LABELS.resampled((2.5, 3.0))
    over = Overlay(mask, LABELS, "a")
    rows = [int(2.5 * (row + 0.5)) for row in range(mask.height)]
    cols = [int(3.0 * (col + 0.5)) for col in range(mask.width)]
    window = Window(3, 2, 15, 20)
    expected = PIXELS[np.ix_(rows[3:18], cols[2:22])]
    np.testing.assert_array_equal(over.read(window, read), expected)
    assert over.resampled


def test_a_finer_mask_repeats_labels() -> None:
    mask = LABELS.resampled((0.5, 0.5))
    labels = Overlay(mask, LABELS, "a").read(mask.whole, read)
    np.testing.assert_array_equal(labels, np.kron(PIXELS, np.ones((2, 2), np.uint8)))


def test_a_part_of_the_scene_is_found_in_it() -> None:
    part = Window(10, 20, 30, 40)
    over = Overlay(LABELS.window(part), LABELS, "a")
    labels = over.read(Window(0, 0, 30, 40), read)
    np.testing.assert_array_equal(labels, PIXELS[part.slices])
    assert not over.resampled


ELSEWHERE = {
    "reaches beyond": replace(LABELS, transform=Affine(0.5, 0, 1010, 0, -0.5, 2000)),
    "run in other directions": replace(
        LABELS, transform=Affine(0.5, 0, 1000, 0, 0.5, 1970)
    ),
    "is in WGS 84 / UTM zone 32N and the labels are in WGS 84 / UTM zone 31N": replace(
        LABELS, crs=CRS.from_epsg(32632).to_wkt(version="WKT2_2019")
    ),
    "is in no CRS": replace(LABELS, crs=None),
}


@pytest.mark.parametrize("message", ELSEWHERE)
def test_a_mask_of_other_ground_is_refused(message: str) -> None:
    with pytest.raises(SceneError, match=f"scene-1: .*{message}") as caught:
        Overlay(ELSEWHERE[message], LABELS, "scene-1")
    assert "\n" not in str(caught.value)
