"""Wrong calls end before anything starts, with one line that says what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from rasters import UTM, write_raster
from running import configuration, smooth_image
from stubs import save_stub

from geoseg.clusters.config import SpecConfig, TlsConfig
from geoseg.errors import ConfigError, ModelError, OutputError, TilingError, UsageError
from geoseg.io.raster import Scene
from geoseg.pipelines import segment, segment_run
from geoseg.pipelines.segment import Listener, ModelConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stub(tmp_path_factory.mktemp("models") / "stub")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong must be found before processes are started."""

    def refuse(*_: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(segment_run, "connect", refuse)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", smooth_image(70, 70))


CASES: dict[str, tuple[dict[str, dict[str, Any]], type[UsageError], str]] = {
    "tile size": (
        {"tiling": {"tile_size": 70}},
        TilingError,
        "tile size 70 .* patch size 16; use 64 or 80",
    ),
    "stride and overlap": (
        {"tiling": {"stride": 48, "overlap": 8}},
        TilingError,
        "give one",
    ),
    "stride too large": ({"tiling": {"stride": 65}}, TilingError, "use 1 to 64"),
    "stride of nothing": ({"tiling": {"stride": 0}}, TilingError, "use 1 to 64"),
    "all overlap": (
        {"tiling": {"stride": None, "overlap": 64}},
        TilingError,
        "overlap of 64 does not fit .* use 0 to 63",
    ),
    "AOI missing": (
        {"input": {"aoi": Path("missing.gpkg")}},
        UsageError,
        "missing.gpkg does not exist",
    ),
    "empty box": ({"input": {"bbox": (1, 1, 0, 2)}}, UsageError, "is empty; give left"),
    "resolution": ({"input": {"resolution": -1.0}}, UsageError, "not a length"),
    "scale": ({"input": {"scale": 0.0}}, UsageError, "not a positive number"),
    "device": ({"model": {"device": "gpu"}}, ModelError, "use auto, cpu or cuda"),
    "imports": (
        {"model": {"imports": ("no_such_module",)}},
        ModelError,
        "no_such_module cannot be imported",
    ),
    "model missing": (
        {"model": {"path": "./no-such-model"}},
        ModelError,
        "no-such-model.*could not be had from the hub",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_calls_start_nothing(
    tmp_path: Path,
    scene: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sections, kind, message = CASES[name]
    with pytest.raises(kind, match=message) as caught:
        segment.run(configuration(scene, tmp_path / "out", model, sections))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*/*.tif"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    sections = {"model": {"device": "cuda"}}
    with pytest.raises(ModelError, match="no GPU; use --device cpu"):
        segment.run(configuration(scene, tmp_path / "out", model, sections))


def test_a_model_folder_without_safetensors_is_refused(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    weights = copy / "model.safetensors"
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle; convert"):
        segment.run(configuration(scene, tmp_path / "out", copy))
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        segment.run(configuration(scene, tmp_path / "out", copy))


def test_an_output_that_cannot_be_used_is_refused(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file; -o wants a folder"):
        segment.run(configuration(scene, tmp_path / "file", model))
    with pytest.raises(OutputError, match="cannot be written"):
        segment.run(configuration(scene, tmp_path / "file" / "out", model))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("x")
    with pytest.raises(OutputError, match=r"not made by geoseg.*--overwrite"):
        segment.run(configuration(scene, tmp_path / "photos", model))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"batch_size": 0}, "1 or more"), ({"torch_threads": 0}, "1 or more")],
)
def test_numbers_that_run_no_model_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**fields)


HUGE = """\
<VRTDataset rasterXSize="2000000000" rasterYSize="2000000000">
  <VRTRasterBand dataType="Byte" band="1"/>
  <VRTRasterBand dataType="Byte" band="2"/>
  <VRTRasterBand dataType="Byte" band="3"/>
</VRTDataset>
"""


@pytest.mark.parametrize(
    ("resolution", "message"),
    [
        ("native", "tiles, more than 5000000; run it"),
        (1e-6, "times finer; pass a --resolution above 0.0632 metres"),
        (1e9, "is smaller than one pixel of 1e"),
    ],
)
def test_scenes_of_absurd_sizes_fail_alone_and_at_once(
    tmp_path: Path, model: Path, resolution: float | str, message: str
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(70, 70), crs=UTM)
    if resolution == "native":
        scene = tmp_path / "scene.vrt"
        scene.write_text(HUGE)
    sections = {"input": {"resolution": resolution}}
    report = segment.run(configuration(scene, tmp_path / "out", model, sections))
    [failure] = report.failures
    assert message in failure.reason


SCENES: dict[str, tuple[dict[str, Any], str]] = {
    "one band": ({"bands": 1}, "1 band, and model .* takes 3 .*--bands 1,1,1"),
    "two bands": ({"bands": 2}, "2 bands, .*--bands 1,2,2"),
    "16 bits": ({"dtype": "uint16"}, "uint16 pixels, .*--scale"),
    "complex": ({"dtype": "complex64"}, "convert it to real numbers"),
    "cut short": ({"cut": True}, "cannot be read"),
    "elsewhere": (
        {"transform": Affine(1, 0, 9e6, 0, -1, 9e6)},
        "does not touch the scene",
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_scenes_that_cannot_be_run_fail_before_a_cluster_starts(
    tmp_path: Path, model: Path, name: str
) -> None:
    options, reason = SCENES[name]
    options = {"bands": 3, "dtype": "uint8", "cut": False, **options}
    pixels = np.ones((options.pop("bands"), 70, 70), options.pop("dtype"))
    cut = options.pop("cut")
    scene = write_raster(tmp_path / "scene.tif", pixels, crs=UTM, **options)
    if cut:
        scene.write_bytes(scene.read_bytes()[:100])
    box = (500_000, 5_799_900, 500_100, 5_800_001)
    config = configuration(scene, tmp_path / "out", model, {"input": {"bbox": box}})
    report = segment.run(config)
    [failure] = report.failures
    assert not report.ok
    assert failure.scene_id == "scene"
    assert re.search(reason, failure.reason), failure.reason
    assert "\n" not in failure.reason
    assert not (tmp_path / "out" / "scene").exists()


class Notes(Listener):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.scenes: list[Scene] = []

    def planned(self, scene_id: str, scene: Scene, tiles: int) -> None:
        self.scenes.append(scene)

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_scene_without_crs_is_accepted_with_a_warning(
    tmp_path: Path, model: Path
) -> None:
    scene = write_raster(
        tmp_path / "s.tif", smooth_image(70, 70), crs=None, transform=Affine.identity()
    )
    notes = Notes()
    with pytest.raises(AssertionError, match="a cluster was started"):
        segment.run(configuration(scene, tmp_path / "out", model), notes)
    [note] = notes.notes
    assert "has no CRS" in note
    assert "areas are in pixels" in note
    assert notes.scenes[0].grid.crs is None


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"spec": SpecConfig("os.system")}, "os.system is no class of clusters"),
        ({"tls": TlsConfig(Path("no"), Path("no"))}, "certificates cannot be read"),
    ],
)
def test_a_cluster_that_cannot_be_is_told_before_scenes_are_looked_at(
    tmp_path: Path, scene: Path, model: Path, cluster: dict[str, Any], message: str
) -> None:
    sections = {"cluster": cluster}
    config = configuration(scene, tmp_path / "out", model, sections)
    with pytest.raises(ConfigError, match=message):
        segment.run(config)
    assert not (tmp_path / "out").exists()
