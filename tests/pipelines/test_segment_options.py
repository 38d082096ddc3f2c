"""Every option of `segment` changes something that can be seen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import yaml
from distributed import Client
from rasters import NORTH_UP, write_raster
from running import configuration, read_band, smooth_image
from stubs import clear_log, logged_loads, logged_tiles, save_stub

from geoseg.clusters.config import SpecConfig
from geoseg.clusters.secrets import MASK
from geoseg.pipelines import segment, segment_run
from geoseg.types import NODATA


@dataclass(frozen=True)
class Seen:
    """What a run of one scene shows of itself."""

    scene_id: str
    tiles: int
    predicted: int
    batches: set[int]
    processes: set[int]
    files: set[str]
    codec: str
    pixel_size: float
    mask: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Bench:
    """A scene, a model, and the cluster to run them on."""

    folder: Path
    scene: Path
    model: Path
    log: Path
    scheduler: str

    def run(self, out: str, sections: dict[str, dict[str, Any]]) -> Seen:
        """Run the scene and look."""
        clear_log(self.log)
        sections = {"cluster": {"scheduler": self.scheduler}, **sections}
        config = configuration(self.scene, self.folder / out, self.model, sections)
        [result] = segment.run(config).results
        folder = Path(result.folder)
        with rasterio.open(folder / "classes.tif") as dataset:
            size = dataset.transform.a
            codec = dataset.compression.name
        lines = [p.read_text().split() for p in self.log.glob("*-tiles")]
        confidence = folder / "confidence.tif"
        return Seen(
            scene_id=result.scene_id,
            tiles=result.tiles,
            predicted=sum(logged_tiles(self.log).values()),
            batches={int(count) for line in lines for count in line},
            processes=set(logged_tiles(self.log)),
            files={path.name for path in folder.iterdir()},
            codec=codec,
            pixel_size=size,
            mask=read_band(folder / "classes.tif"),
            confidence=read_band(confidence) if confidence.exists() else None,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "archive" / "2024").mkdir(parents=True)
    image = smooth_image(150, 130)
    image[:, 100:110, 100:110] = 77
    scene = write_raster(folder / "archive" / "2024" / "scene.tif", image)
    log = folder / "log"
    model = save_stub(
        folder / "model",
        kind="seams",
        num_classes=3,
        std=(0.1, 0.1, 0.1),
        mean=(0.5, 0.5, 0.5),
        log_folder=log,
    )
    return Bench(folder, scene, model, log, scheduler)


@pytest.fixture(scope="module")
def usual(bench: Bench) -> Seen:
    """The run that all others are compared with."""
    return bench.run("usual", {})


def changed_pixels(usual: Seen, seen: Seen) -> None:
    assert seen.mask.shape == usual.mask.shape
    assert usual.confidence is not None
    assert seen.confidence is not None
    assert (seen.confidence != usual.confidence).any()


def box(left: int, top: int, right: int, bottom: int) -> tuple[float, ...]:
    """Corners of a pixel box in the scene's CRS."""
    (x0, y1), (x1, y0) = NORTH_UP @ (left, top), NORTH_UP @ (right, bottom)
    return (x0, y0, x1, y1)


def check_tta(usual: Seen, seen: Seen) -> None:
    assert seen.tiles == usual.tiles
    assert seen.predicted == 4 * usual.predicted
    assert (seen.mask == usual.mask).mean() > 0.95


def check_bbox(usual: Seen, seen: Seen) -> None:
    assert seen.mask.shape == (40, 30)
    assert (seen.mask == usual.mask[20:60, 10:40]).all()
    assert seen.predicted == seen.tiles == 2 < usual.tiles


def check_nodata(usual: Seen, seen: Seen) -> None:
    hidden = seen.mask == NODATA
    assert hidden[100:110, 100:110].all()
    assert hidden.sum() == 100
    assert not (usual.mask == NODATA).any()


def check_resolution(usual: Seen, seen: Seen) -> None:
    assert usual.pixel_size == 0.5
    assert seen.pixel_size == pytest.approx(1, rel=1e-3)
    assert seen.mask.shape == (75, 65)


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Seen, Seen], object]]] = {
    "tile_size": ("tiling", {"tile_size": 96, "stride": 80}, lambda u, s: s.tiles == 4),
    "stride": ("tiling", {"stride": 32}, lambda u, s: s.tiles == 16),
    "overlap": ("tiling", {"stride": None, "overlap": 0}, lambda u, s: s.tiles == 9),
    "blend": ("tiling", {"window": "none"}, changed_pixels),
    "blend_linear": ("tiling", {"window": "linear"}, changed_pixels),
    "blend_space": ("tiling", {"space": "probabilities"}, changed_pixels),
    "tta": ("model", {"tta": True}, check_tta),
    "batch_size": ("model", {"batch_size": 4}, lambda u, s: s.batches == {4}),
    "resolution": ("input", {"resolution": 1.0}, check_resolution),
    "bands": ("input", {"bands": (3, 2, 1)}, changed_pixels),
    "scale": ("input", {"scale": 400.0}, changed_pixels),
    "nodata": ("input", {"nodata": 77}, check_nodata),
    "bbox": ("input", {"bbox": box(10, 20, 40, 60)}, check_bbox),
    "no_confidence": (
        "output",
        {"confidence": False},
        lambda u, s: u.files - s.files == {"confidence.tif", "confidence.qml"},
    ),
    "save_scores": (
        "output",
        {"save_scores": True},
        lambda u, s: s.files - u.files == {"scores.tif", "scores.qml"},
    ),
    "compress": (
        "output",
        {"compress": "deflate"},
        lambda u, s: (u.codec, s.codec) == ("zstd", "deflate"),
    ),
    "no_polygons": (
        "output",
        {"polygons": False},
        lambda u, s: u.files - s.files == {"segments.gpkg"},
    ),
}


def test_secrets_of_a_cluster_are_not_recorded_and_change_nothing(
    bench: Bench, usual: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no cluster is needed")

    monkeypatch.setattr(segment_run, "connect", refuse)
    spec = SpecConfig("distributed.LocalCluster", {"env": {"TOKEN": "hunter2"}})
    again = bench.run("usual", {"cluster": {"scheduler": None, "spec": spec}})
    assert (again.tiles, again.predicted) == (usual.tiles, 0)
    saved = (bench.folder / "usual" / "run.yaml").read_text()
    assert "hunter2" not in saved
    assert yaml.safe_load(saved)["cluster"]["spec"]["options"]["env"] == {"TOKEN": MASK}


@pytest.mark.parametrize("name", CASES)
def test_every_option_changes_what_it_is_named_for(
    bench: Bench, usual: Seen, name: str
) -> None:
    section, fields, check = CASES[name]
    assert usual.tiles == usual.predicted == 9
    assert usual.batches == {1}
    seen = bench.run(name, {section: fields})
    assert check(usual, seen) in (True, None)


def test_dtype_changes_the_precision_of_products(bench: Bench, tmp_path: Path) -> None:
    model = save_stub(tmp_path / "other", num_classes=6)
    other = Bench(tmp_path, bench.scene, model, bench.log, bench.scheduler)
    changed_pixels(
        other.run("exact", {"model": {"dtype": "float32"}}),
        other.run("coarse", {"model": {"dtype": "bfloat16"}}),
    )


def test_model_changes_the_classes(bench: Bench, tmp_path: Path) -> None:
    model = save_stub(tmp_path / "other", kind="levels", num_classes=6)
    other = Bench(tmp_path, bench.scene, model, bench.log, bench.scheduler)
    seen = other.run("out", {})
    assert set(np.unique(seen.mask)) - {1, 2, 3}


def test_root_changes_the_scene_id(bench: Bench, usual: Seen) -> None:
    seen = bench.run("root", {"input": {"root": str(bench.scene.parents[1])}})
    assert (usual.scene_id, seen.scene_id) == ("scene", "2024/scene")
    assert (bench.folder / "root" / "2024" / "scene" / "classes.tif").exists()


def test_overwrite_makes_a_finished_scene_again(bench: Bench) -> None:
    assert bench.run("again", {}).predicted == 9
    assert bench.run("again", {}).predicted == 0
    assert bench.run("again", {"output": {"overwrite": True}}).predicted == 9


def test_a_given_scheduler_runs_everything_on_its_workers(
    bench: Bench, usual: Seen
) -> None:
    with Client(bench.scheduler, set_as_default=False) as client:
        pids = set(client.run(os.getpid).values())
        # It would cost the scheduler a gigabyte, and each run its time to load.
        assert not client.run_on_scheduler(lambda: "torch" in sys.modules)
    assert len(pids) == 2
    assert usual.processes <= pids
    assert os.getpid() not in pids


@pytest.mark.slow
def test_one_local_worker_gives_what_two_of_a_scheduler_do(
    bench: Bench, tmp_path: Path, usual: Seen
) -> None:
    log = tmp_path / "log"
    model = save_stub(
        tmp_path / "model",
        kind="seams",
        num_classes=3,
        std=(0.1, 0.1, 0.1),
        mean=(0.5, 0.5, 0.5),
        log_folder=log,
        seconds=0.2,
    )
    image = smooth_image(64 + 48 * 13, 130, seed=4)
    tall = write_raster(tmp_path / "tall.tif", image)
    local = {"cluster": {"workers": 1, "timeout": 120.0}}
    config = configuration([bench.scene, tall], tmp_path / "out", model, local)
    report = segment.run(config)
    assert report.ok
    loads = logged_loads(log)
    assert list(loads.values()) == [1]
    assert os.getpid() not in loads
    folder = Path(report.results[0].folder)
    assert (read_band(folder / "classes.tif") == usual.mask).all()
    assert (read_band(folder / "confidence.tif") == usual.confidence).all()
