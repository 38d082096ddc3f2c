"""Pictures of a training are known by their names, so that they are no scenes."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from lightning.pytorch import LightningModule, Trainer

from geoseg.layout import PICTURE, PICTURES
from geoseg.training.logs import RunLog
from geoseg.training.progress import Listener
from geoseg.training.validation import View
from geoseg.types import ClassInfo


@pytest.mark.parametrize("name", ["a", "Train/Urban/1366", "é", "..."])
def test_names_are_those_that_others_know(tmp_path: Path, name: str) -> None:
    log = RunLog(tmp_path, 1, [ClassInfo(1, "water", (0, 0, 255))], Listener())
    module = Mock(spec=LightningModule)
    trainer = Mock(spec=Trainer, is_global_zero=True, global_step=0)
    log.on_train_start(trainer, module)
    pixels = np.zeros((8, 8), np.uint8)
    for step in (0, 400, 1_000_000):
        log.looked(step, View(name, np.zeros((3, 8, 8), np.float32), pixels, pixels))
    log.teardown(trainer, module, "fit")
    written = [path.name for path in (tmp_path / PICTURES).iterdir()]
    assert len(written) == 3
    assert all(map(PICTURE.fullmatch, written))
