"""Flags become a configuration; results and failures become text and exit codes."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from commands import RecordedRun, geoseg, scene_result
from rasters import write_raster
from stubs import save_stub

from geoseg.cli.main import main
from geoseg.pipelines.options import KEYS
from geoseg.stream import SceneFailure

FLAGS: list[tuple[str, str, object]] = [
    ("--model some/model", "model.path", "some/model"),
    ("--device cuda:1", "model.device", "cuda:1"),
    ("--dtype bfloat16", "model.dtype", "bfloat16"),
    ("--batch-size 3", "model.batch_size", 3),
    ("--tile-size 512", "tiling.tile_size", 512),
    ("--stride 480", "tiling.stride", 480),
    ("--overlap 0", "tiling.overlap", 0),
    ("--blend linear", "tiling.window", "linear"),
    ("--blend-space probabilities", "tiling.space", "probabilities"),
    ("--resolution native", "input.resolution", "native"),
    ("--resolution 0.3", "input.resolution", 0.3),
    ("--bands 4,3,2", "input.bands", (4, 3, 2)),
    ("--scale 10000", "input.scale", 10000.0),
    ("--nodata -9999", "input.nodata", -9999.0),
    ("--root s3://archive/x", "input.root", "s3://archive/x"),
    ("--asset visual", "input.asset", "visual"),
    ("--mosaic", "input.mosaic", True),
    ("--verify", "input.verify", True),
    ("--aoi area.gpkg", "input.aoi", Path("area.gpkg")),
    ("--bbox -10,20.5,30,4e1", "input.bbox", (-10.0, 20.5, 30.0, 40.0)),
    ("--workers 3", "cluster.workers", 3),
    ("--scheduler tcp://host:8786", "cluster.scheduler", "tcp://host:8786"),
    ("--scheduler-file s.json", "cluster.scheduler_file", Path("s.json")),
    ("--overwrite", "output.overwrite", True),
    ("--tta", "model.tta", True),
    ("--no-confidence", "output.confidence", False),
    ("--no-polygons", "output.polygons", False),
    ("--save-scores", "output.save_scores", True),
    ("--compress deflate", "output.compress", "deflate"),
    ("--exclude road --exclude 3", "output.exclude", ("road", "3")),
    ("--min-area 25", "output.min_area", 25.0),
    ("--simplify 1.5", "output.simplify", 1.5),
    ("--on-error fail", "output.on_error", "fail"),
    ("--set cluster.threads=5", "cluster.threads", 5),
]


def value_of(config: object, key: str) -> object:
    """Return the value at a dotted key."""
    return reduce(getattr, key.split("."), config)


def test_the_kind_of_cluster_is_chosen_by_name(recorded: RecordedRun) -> None:
    geoseg("segment", "a.tif", "-o", "out", "--cluster", "slurm", "--workers", 3)
    cluster = recorded.config.cluster
    assert cluster.spec is not None
    assert cluster.spec.cls == "dask_jobqueue.SLURMCluster"
    assert cluster.spec.options["cores"] == cluster.threads == 2
    assert cluster.workers == 3


def test_a_kind_of_cluster_that_is_none_is_refused_with_those_there_are() -> None:
    refused = geoseg("segment", "a.tif", "-o", "out", "--cluster", "slum")
    assert refused.exit_code == 2
    assert "scheduler-file" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(("flag", "key", "value"), FLAGS)
def test_a_flag_sets_its_key_and_no_other(
    recorded: RecordedRun, flag: str, key: str, value: object
) -> None:
    assert geoseg("segment", "a.tif", "-o", "out").exit_code == 0
    assert geoseg("segment", "a.tif", "-o", "out", *flag.split()).exit_code == 0
    plain, flagged = recorded.configs
    assert value_of(plain, key) != value
    assert value_of(flagged, key) == value
    keys = {*KEYS.values(), "cluster.threads"} - {key, "clusters"}
    assert [k for k in keys if value_of(plain, k) != value_of(flagged, k)] == []


def test_every_option_of_python_is_a_flag() -> None:
    flags = {parameter.name for parameter in main.commands["segment"].params}
    assert flags - set(KEYS) == {
        "scenes",
        "out",
        "config",
        "settings",
        "verbose",
        "quiet",
    }
    assert set(KEYS) <= flags
    assert {flag.split()[0] for flag, _, _ in FLAGS} >= {
        f"--{name.replace('_', '-')}"
        for name in set(KEYS) - {"cluster", "confidence", "polygons"}
    }


def test_nodata_may_be_nan_and_a_box_may_have_spaces(recorded: RecordedRun) -> None:
    box = "1 2, 3 4"
    geoseg("segment", "a.tif", "-o", "o", "--nodata", "nan", "--bbox", box)
    nodata = recorded.config.input.nodata
    assert nodata is not None
    assert math.isnan(nodata)
    assert recorded.config.input.bbox == (1, 2, 3, 4)


def test_set_wins_over_flags_and_flags_over_the_recipe(
    recorded: RecordedRun, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "defaults: [segment, _self_]\n"
        "scenes: [b.tif, c.tif]\n"
        "out: results\n"
        "tiling: {overlap: 10, tile_size: 128, window: none}\n"
    )
    flags = ["--stride", "100", "--tile-size", "256"]
    result = geoseg("segment", "-c", recipe, *flags, "--set", "tiling.tile_size=512")
    assert result.exit_code == 0
    config = recorded.config
    assert config.scenes == ("b.tif", "c.tif")
    assert config.out == Path("results")
    assert config.tiling.window == "none"
    assert (config.tiling.stride, config.tiling.overlap) == (100, None)
    assert config.tiling.tile_size == 512


def test_scenes_given_win_over_those_of_the_recipe(
    recorded: RecordedRun, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults: [segment, _self_]\nscenes: [b.tif]\nout: results\n")
    assert geoseg("segment", "it's [1].tif", "-o", "x", "-c", recipe).exit_code == 0
    assert recorded.config.scenes == ("it's [1].tif",)
    assert recorded.config.out == Path("x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out"], "no scene is given; name files"),
        (["a.tif"], "no output folder is given; name one with -o"),
        (["a.tif", "-o", "o", "--stride", "1", "--overlap", "1"], "give one"),
        (["a.tif", "-o", "o", "--set", "tilling.stride=1"], "did you mean tiling?"),
        (["a.tif", "-o", "o", "--set", "tiling.strid=1"], "did you mean tiling.stride"),
        (["a.tif", "-o", "o", "--set", "tiling.stride=x"], "tiling.stride must be"),
        (["a.tif", "-o", "o", "-c", "segmnt"], "did you mean segment?"),
        (["a.tif", "-o", "o", "-c", "no.yaml"], "no.yaml: no such file"),
        (["a.tif", "-o", "o", "--bbox", "1,2,3"], "holds 3 numbers, not 4"),
        (["a.tif", "-o", "o", "--resolution", "fine"], "none of auto, native"),
        (["a.tif", "-o", "o", "--blend", "cosine"], "'hann', 'linear', 'none'"),
        (["a.tif", "-o", "o", "--batch-size", "0"], "x>=1"),
    ],
)
def test_a_wrong_call_starts_nothing(
    recorded: RecordedRun, arguments: list[str], message: str
) -> None:
    result = geoseg("segment", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("Error: ") == 1
    assert recorded.configs == []


def test_an_excluded_class_has_no_area_and_the_others_have(
    recorded: RecordedRun,
) -> None:
    result = scene_result("a", (300, 500, 700))
    entries = list(result.classes)
    entries[1] = replace(entries[1], polygons=None, area_m2=None)
    recorded.results = (replace(result, classes=tuple(entries)),)
    lines = geoseg("segment", "a.tif", "-o", "out").stdout.splitlines()
    table = [line.split() for line in lines]
    assert ["class", "1", "300.00", "30.0%", "2"] in table
    assert ["class", "2", "-", "-", "-"] in table
    assert ["class", "3", "700.00", "70.0%", "6"] in table
    assert ["all", "1,000.00", "8"] in table


def test_areas_are_summed_in_a_fitting_unit(recorded: RecordedRun) -> None:
    recorded.results = (
        scene_result("a", (1_500_000, 0)),
        scene_result("b", (500_000, 2_000_000)),
    )
    result = geoseg("segment", "a.tif", "-o", "my out")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "2 scenes" in lines
    assert "class area km² share polygons" in lines
    assert "class 1 2.00 50.0% 4" in lines
    assert "class 2 2.00 50.0% 8" in lines
    assert "all 4.00 12" in lines
    assert "Results: 'my out' (2 scenes)" in lines
    assert "Next: geoseg preview 'my out'" in lines


def test_without_a_crs_pixels_are_counted(recorded: RecordedRun) -> None:
    recorded.results = (scene_result("a", (30, 10)), scene_result("b", (0, 60), None))
    lines = geoseg("segment", "a.tif", "-o", "out").stdout.splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert "class pixels share polygons" in words
    assert "class 2 70 70.0% 8" in words


def test_failed_scenes_are_named_on_stderr_even_when_quiet(
    recorded: RecordedRun,
) -> None:
    recorded.results = (scene_result("good", (1,)),)
    recorded.failures = (SceneFailure("2024/[bad]", "it is\nbroken"),)
    result = geoseg("segment", "a.tif", "-o", "out", "-q")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "Error: 1 scene failed of 2:\n  2024/[bad]: it is broken\n"
    )
    loud = geoseg("segment", "a.tif", "-o", "out")
    assert loud.exit_code == 1
    assert "Results: out (1 scene)" in loud.stdout


def test_notes_are_said_once(recorded: RecordedRun) -> None:
    recorded.notes = ("/a/1.tif has no CRS", "/a/2.tif has no CRS", "/a/3.tif is odd")
    lines = geoseg("segment", "a.tif", "-o", "out").stderr.splitlines()
    assert lines == [
        "Note: /a/1.tif has no CRS",
        "Note: /a/3.tif is odd",
        "Note: the same for 1 more: has no CRS",
    ]


def no_cluster(*_: object) -> None:
    raise AssertionError("a cluster was started")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a stub model whose tiles are 64 pixels."""
    return save_stub(tmp_path_factory.mktemp("model") / "stub")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of 20 x 20 pixels."""
    return write_raster(tmp_path / "scene.tif", np.full((3, 20, 20), 9, np.uint8))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scene": "missing.tif"}, "missing.tif does not exist"),
        ({"model": "no/such/model"}, "model 'no/such/model' is no folder"),
        ({"model": "weightless"}, "weightless has no *.safetensors weights"),
        ({"flags": ["--tile-size", "50"]}, "use 48 or 64"),
        (
            {"flags": ["--overlap", "64"]},
            "overlap of 64 does not fit tiles of 64; use 0 to 63",
        ),
        ({"flags": ["--aoi", "none.gpkg"]}, "none.gpkg does not exist"),
        ({"out": "file"}, "file is a file"),
        ({"out": "foreign"}, "foreign exists and was not made by geoseg"),
    ],
)
def test_bad_input_is_refused_before_the_cluster(
    changed: dict[str, str | list[str]],
    message: str,
    model: Path,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("geoseg.pipelines.segment_run.connect", no_cluster)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.doc").write_text("")
    before = sorted(tmp_path.rglob("*"))
    result = geoseg(
        *("segment", changed.get("scene", scene), "-o", changed.get("out", "out")),
        *("--model", changed.get("model", model), "--set", "model.imports=[stubs]"),
        *changed.get("flags", []),
    )
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
