"""`geoseg.segment` is the command in Python: the same options, records, errors."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from commands import RecordedRun, scene_result

import geoseg
from geoseg.errors import GeosegWarning, SegmentationError, UsageError
from geoseg.pipelines.options import KEYS, SegmentOptions
from geoseg.stream import SceneFailure


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedRun:
    """Replace the job of `segment`."""
    run = RecordedRun()
    monkeypatch.setattr("geoseg.pipelines.segment.run", run)
    return run


def test_segment_returns_the_scenes_records(recorded: RecordedRun) -> None:
    recorded.results = (scene_result("b", (1,)), scene_result("a", (2,)))
    records = geoseg.segment(["b.tif", Path("a.tif")], "out", overlap=16, workers=2)
    assert records == list(recorded.results)
    config = recorded.config
    assert config.scenes == ("b.tif", "a.tif")
    assert config.out == Path("out")
    assert config.tiling.overlap == 16
    assert config.cluster.workers == 2


def test_one_scene_needs_no_list(recorded: RecordedRun) -> None:
    geoseg.segment(Path("folder"), Path("out"), set=["tiling.stride=3"])
    assert recorded.config.scenes == ("folder",)
    assert recorded.config.tiling.stride == 3


def test_types_are_checked_as_on_the_command_line(recorded: RecordedRun) -> None:
    geoseg.segment(
        "a.tif",
        "out",
        model=Path("m"),
        resolution=1,
        bands=[3, 2, 1],
        bbox=(0, 1, 2, 3.5),
        nodata=float("nan"),
        polygons=False,
        stride=None,
    )
    given = recorded.config.input
    assert recorded.config.model.path == "m"
    assert (given.resolution, given.bands, given.bbox) == (1, (3, 2, 1), (0, 1, 2, 3.5))
    assert given.nodata is not None
    assert given.nodata != given.nodata
    assert not recorded.config.output.polygons


def test_failed_scenes_raise_after_the_others_are_finished(
    recorded: RecordedRun,
) -> None:
    recorded.results = (scene_result("good", (1,)),)
    recorded.failures = (SceneFailure("bad", "it is broken"),)
    with pytest.raises(
        SegmentationError, match="1 of 2 scenes failed; the first is bad: it is broken"
    ) as caught:
        geoseg.segment(["good.tif", "bad.tif"], "out")
    assert caught.value.report.results == recorded.results
    assert caught.value.report.failures == recorded.failures


def test_notes_are_warnings(recorded: RecordedRun) -> None:
    recorded.notes = ("a.tif has no CRS",)
    with pytest.warns(GeosegWarning, match=r"a\.tif has no CRS"):
        geoseg.segment("a.tif", "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strid": 3}, "no option 'strid'; did you mean stride?"),
        ({"zzz": 3}, "no option 'zzz'; known: model, "),
        ({"stride": 3, "overlap": 3}, "give one"),
        ({"stride": "three"}, "tiling.stride must be"),
        ({"blend": "cosine"}, "tiling.window must be"),
        ({"workers": True}, "cluster.workers must be"),
    ],
)
def test_a_wrong_option_is_refused(
    recorded: RecordedRun, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        geoseg.segment("a.tif", "out", **options)  # type: ignore[arg-type]
    assert recorded.configs == []


def test_scenes_and_folder_must_be_given_somewhere(recorded: RecordedRun) -> None:
    with pytest.raises(UsageError, match="no scene is given"):
        geoseg.segment(out="out")
    with pytest.raises(UsageError, match="no output folder is given"):
        geoseg.segment("a.tif")
    assert recorded.configs == []


def test_every_option_has_a_key_and_is_described() -> None:
    assert set(get_type_hints(SegmentOptions)) == set(KEYS)
    text = " ".join((inspect.getdoc(geoseg.segment) or "").split())
    assert ", ".join(KEYS) in text


def test_importing_geoseg_is_light_and_unknown_names_are_errors() -> None:
    code = """
import sys, geoseg
assert "segment" in dir(geoseg)
assert not {"torch", "rasterio", "dask", "hydra"} & set(sys.modules)
try:
    geoseg.segmnt
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "module 'geoseg' has no attribute 'segmnt'"
