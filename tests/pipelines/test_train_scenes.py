"""One process looks at the scenes of a training; the others take over what it saw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from trainings import Heard, configuration

from geoseg.errors import OutputError
from geoseg.pipelines import train_scenes
from geoseg.pipelines.train_scenes import (
    TrainingScenes,
    find_scenes,
    left_for_others,
)
from geoseg.types import ModelSpec


def spec_of(config: Any) -> ModelSpec:  # noqa: ANN401
    data = config.data
    return ModelSpec(
        name="a",
        tile_size=96,
        patch_size=16,
        classes=tuple(data.table.infos),
        bands=("red", "green", "blue"),
        scale=(("uint8", 255.0),),
        mean=data.mean,
        std=data.std,
        resolution=data.resolution,
        weights_sha256="",
    )


def names(scenes: TrainingScenes) -> list[list[str]]:
    parts = (scenes.trained, scenes.judged)
    return [[source.name for source in part.sources] for part in parts]


def test_other_processes_take_over_what_the_first_one_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {"train": ["one", "two"], "validation": ["unseen"]}
    config = configuration(tmp_path, split=split)
    heard = Heard()
    found = find_scenes(config.data, spec_of(config), None, heard)
    assert {part for part, *_ in heard.looked_at} == {"training", "validation"}
    assert names(found) == [["one", "two"], ["unseen"]]
    before = dict(os.environ)
    with left_for_others(found, processes=2):
        (path,) = {value for name, value in os.environ.items() if name not in before}
        assert Path(path).stat().st_mode & 0o077 == 0
        # The first process itself is not led by it.
        again = find_scenes(config.data, spec_of(config), None, Heard())
        assert names(again) == names(found)
        with monkeypatch.context() as other:
            other.setenv("LOCAL_RANK", "1")
            # It shall not look itself: what it would find may be something else.
            other.delattr(train_scenes, "survey")
            taken = find_scenes(config.data, spec_of(config), None, Heard(), 2)
        assert names(taken) == names(found)
        assert (taken.trained.totals == found.trained.totals).all()
        # One that outlives the run looks for itself in the next one.
        assert dict(os.environ) == before
    assert dict(os.environ) == before
    assert not Path(path).exists()


def test_a_process_alone_leaves_nothing(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    found = find_scenes(config.data, spec_of(config), None, Heard())
    before = dict(os.environ)
    with left_for_others(found, processes=1):
        assert dict(os.environ) == before


def test_no_place_for_temporary_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(tmp_path)
    found = find_scenes(config.data, spec_of(config), None, Heard())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with (
        pytest.raises(OutputError, match="or set TMPDIR"),
        left_for_others(found, processes=2),
    ):
        pass
