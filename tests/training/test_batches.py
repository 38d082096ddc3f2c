"""What is met while chips are cut comes with the batch, from whatever process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor
from training_runs import WarningChips, loop_config, make_module, train

from geoseg.errors import GeosegWarning, SceneError
from geoseg.training.batches import StepBatch, StepBatches, load_steps


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_warnings_come_with_the_batch(workers: int) -> None:
    chips = WarningChips(make_module().source)
    batches = StepBatches(chips, loop_config(workers=workers), 48)
    batch = next(iter(load_steps(batches, 0)))
    assert isinstance(batch, StepBatch)
    assert list(batch.notes) == ["chip 0 is bad", "chip 1 is bad"]


def test_they_are_warned_of_when_their_step_is_taken(tmp_path: Path) -> None:
    module = make_module(steps=1, batch_size=2, final_share=0.0)
    module.source = WarningChips(module.source)
    with pytest.warns(GeosegWarning) as warned:
        train(module, tmp_path)
    told = [str(one.message) for one in warned]
    assert told == ["chip 0 is bad", "chip 1 is bad"]


def test_an_error_carries_what_was_warned_of_before(tmp_path: Path) -> None:
    class Broken(WarningChips):
        def chip(self, key: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
            super().chip(key, side)
            raise SceneError("no scene is left")

    module = make_module(steps=1, batch_size=2, final_share=0.0)
    module.source = Broken(module.source)
    with (
        pytest.warns(GeosegWarning, match=r"^chip 0 is bad$"),
        pytest.raises(SceneError, match=r"^no scene is left"),
    ):
        train(module, tmp_path)
