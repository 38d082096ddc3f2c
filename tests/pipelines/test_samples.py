"""`segment` on real GeoTIFFs of many makes: what becomes of each is in samples.csv."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import pytest
import rasterio
from running import configuration, read_band, read_segments
from stubs import save_stub

from geoseg.pipelines import segment
from geoseg.pipelines.segment import RunReport
from geoseg.types import NODATA

pytestmark = pytest.mark.slow

TABLE = Path(__file__).with_name("samples.csv")
with TABLE.open(newline="") as _stream:
    SAMPLES = list(csv.DictReader(_stream))

RESOLUTION = 0.5
"""Metres a pixel of the model: finer scenes are resampled, coarser ones are told."""


@pytest.fixture(scope="module")
def samples(shared_data: Path) -> Path:
    return shared_data / "geotiff-samples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "stub"
    return save_stub(
        folder, kind="levels", tile_size=256, output_stride=4, resolution=RESOLUTION
    )


def run(
    scenes: Path, out: Path, model: Path, scheduler: str, **given: object
) -> RunReport:
    sections: dict[str, dict[str, Any]] = {
        "cluster": {"scheduler": scheduler},
        "tiling": {"stride": 208},
        "input": given,
    }
    return segment.run(configuration(scenes, out, model, sections))


@pytest.fixture(scope="module")
def report(
    samples: Path,
    model: Path,
    scheduler: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunReport:
    """All files in one call, without flags."""
    return run(samples, tmp_path_factory.mktemp("runs") / "out", model, scheduler)


def test_the_table_names_every_file(samples: Path) -> None:
    assert sorted(path.name for path in samples.glob("*.tif")) == sorted(
        sample["file"] for sample in SAMPLES
    )


def test_every_sample_has_its_expected_outcome(report: RunReport) -> None:
    assert not report.ok
    reasons = {failure.scene_id: failure.reason for failure in report.failures}
    done = {result.scene_id for result in report.results}
    for sample in SAMPLES:
        name = Path(sample["file"]).stem
        if sample["outcome"] == "ok":
            assert name in done, reasons.get(name)
        else:
            assert sample["reason"] in reasons[name], name
            assert not (report.out / name).exists()


def test_every_8_bit_rgb_file_with_a_crs_succeeds_without_flags(
    samples: Path, report: RunReport
) -> None:
    done = {result.scene_id for result in report.results}
    colors = {"red", "green", "blue", "alpha"}
    for path in samples.glob("*.tif"):
        with rasterio.open(path) as dataset:
            names = {color.name for color in dataset.colorinterp}
            if (
                dataset.dtypes[0] == "uint8"
                and dataset.crs is not None
                and {"red", "green", "blue"} <= names <= colors
            ):
                assert path.stem in done


def test_masks_and_polygons_of_samples_hold_the_same_pixels(report: RunReport) -> None:
    for result in report.results:
        folder = Path(result.folder)
        mask = read_band(folder / "classes.tif")
        total = int((mask != NODATA).sum())
        assert read_segments(folder).pixels.sum() == total > 0
        assert sum(entry.pixels for entry in result.classes) == total


FLAGGED = [sample for sample in SAMPLES if sample["outcome"] == "fails"]


@pytest.mark.parametrize("sample", FLAGGED, ids=[s["file"] for s in FLAGGED])
def test_flags_make_the_refused_samples_run(
    samples: Path, model: Path, scheduler: str, tmp_path: Path, sample: dict[str, str]
) -> None:
    given: dict[str, object] = {}
    if sample["bands"]:
        given["bands"] = tuple(map(int, sample["bands"].split()))
    if sample["scale"]:
        given["scale"] = float(sample["scale"])
    if sample["resolution"]:
        given["resolution"] = float(sample["resolution"])
    scene = samples / sample["file"]
    report = run(scene, tmp_path / "out", model, scheduler, **given)
    assert report.ok, report.failures
    [result] = report.results
    mask = read_band(Path(result.folder) / "classes.tif")
    total = sum(entry.pixels for entry in result.classes)
    assert total == (mask != NODATA).sum() > 0


def test_a_large_file_that_does_not_fit_is_refused_at_once(
    samples: Path, model: Path, scheduler: str, tmp_path: Path
) -> None:
    started = time.monotonic()
    scene = samples / "cloudmask_10980x10980_uint8_utm19s_lzw.tif"
    report = run(scene, tmp_path / "out", model, scheduler)
    assert not report.ok
    assert time.monotonic() - started < 5
