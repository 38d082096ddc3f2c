"""A log that cannot be written is an error of its file, with advice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
from training_runs import CLASSES

from geoseg.errors import FileOutputError
from geoseg.training.logs import RunLog, quiet_writers
from geoseg.training.progress import Listener, Score
from geoseg.training.validation import View

TRAINER: Any = SimpleNamespace(is_global_zero=True, global_step=1, max_steps=1)
MODULE: Any = None

LINES = "step,time,total\n1,0.0,0.5\n2,0.0,0.5\n"


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    """A log that was begun in the test's folder."""
    log = RunLog(tmp_path, 1, CLASSES, Listener())
    log.on_train_start(TRAINER, MODULE)
    return log


@pytest.mark.parametrize(
    "name", ["log.csv", "validation.csv", "pictures/step-000001-a.png"]
)
def test_a_full_disk_is_told_with_its_file(
    tmp_path: Path, log: RunLog, name: str
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / name).symlink_to("/dev/full")
    labels = np.zeros((4, 4), np.uint8)
    view = View("a", np.zeros((3, 4, 4), np.float32), labels, labels)

    def write() -> None:
        log.on_train_batch_end(TRAINER, MODULE, {"total": 0.5})
        log.validated(Score(1, 0.5, (0.5,) * 3, 0.5), best=True)
        log.looked(1, view)

    told = rf"/{name} cannot be written \(No space left on device\); make room and run"
    with pytest.raises(FileOutputError, match=told):
        write()


def test_a_log_for_tensorboard_is_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(FileOutputError, match="/tensorboard cannot be written"):
        RunLog(tmp_path, 1, CLASSES, Listener()).on_train_start(TRAINER, MODULE)


def test_the_thread_that_writes_it_is_silent(
    log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "append", fail)
    told = r"/tensorboard cannot be written \(No space left on device\)"
    # What a thread does not catch would be a warning, which ends a test.
    with quiet_writers(), pytest.raises(FileOutputError, match=told):
        log.validated(Score(1, 0.5, (0.5,) * 3, 0.5), best=True)


def test_a_log_that_cannot_be_shortened_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(LINES)

    def fail(self: Path, text: str) -> int:
        with self.open("w") as stream:
            stream.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(FileOutputError, match=r"log\.csv cannot be written"):
        RunLog(tmp_path, 1, CLASSES, Listener()).on_train_start(TRAINER, MODULE)
    assert path.read_text() == LINES


def rows(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


@pytest.mark.parametrize("left", ["", "step,ti", "step,time,total\n", LINES[:-8]])
def test_a_log_that_a_full_disk_cut_short_has_its_header_again(
    tmp_path: Path, left: str
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(left)
    log = RunLog(tmp_path, 1, CLASSES, Listener())
    log.on_train_start(TRAINER, MODULE)
    log.on_train_batch_end(TRAINER, MODULE, {"total": 0.5})
    header, *found = rows(path)
    assert header == ["step", "time", "total"]
    assert [row[0] for row in found] == ["1"] * (2 if left.count("\n") > 1 else 1)
    assert all(row[2] == "0.5" for row in found)
