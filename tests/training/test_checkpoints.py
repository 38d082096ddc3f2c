"""Checkpoints: when they are written, what they hold, and which are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from training_runs import CLASSES, SPEC, TILE, make_module, train

from geoseg.errors import ConfigError, FileOutputError
from geoseg.evaluation.counts import Counts
from geoseg.training.card import write_card
from geoseg.training.checkpoints import AtomicCheckpointIO
from geoseg.training.fit import Outcome
from geoseg.training.progress import Score


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_foreign_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(ConfigError, match="is not a checkpoint of this model"):
        train(make_module(), tmp_path)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(make_module(steps=1), tmp_path)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del content["state_dict"]["model.class_predictor.weight"]
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="set another out"):
        train(make_module(steps=1), tmp_path)


def test_checkpoints_hold_the_model_and_no_code(tmp_path: Path) -> None:
    train(make_module(steps=1), tmp_path)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    declared = content["geoseg"]["declaration"]
    assert declared["tile_size"] == TILE
    assert [entry["id"] for entry in declared["classes"]] == [c.id for c in CLASSES]
    assert json.loads(json.dumps(content["geoseg"])) == content["geoseg"]
    prefixes = {name.split(".")[0] for name in content["state_dict"]}
    assert prefixes == {"model", "average", "loss"}


def test_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def fail(_: object, stream: Any) -> None:  # noqa: ANN401
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(
        FileOutputError, match=r"\(No space left on device\); the check"
    ):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    # There is none to speak of.
    with pytest.raises(
        FileOutputError, match=r"\(No space left on device\); make room"
    ):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, tmp_path / "first.ckpt")
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_are_never_further_apart_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("geoseg.training.checkpoints.monotonic", lambda: clock.now)
    saves = Saves(clock)
    module = make_module(steps=9, checkpoint_seconds=100.0)
    monkeypatch.setattr(Trainer, "save_checkpoint", saves)
    train(module, tmp_path, clock)
    # Steps take 30 s: after three of them the next would end too late.
    assert saves.times == [90.0, 180.0, 270.0]


@pytest.mark.parametrize("slow", ["step", "validation"])
def test_what_took_long_once_is_not_expected_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    clock = Clock(seconds=5.0, slow=2 if slow == "step" else None)
    monkeypatch.setattr("geoseg.training.checkpoints.monotonic", lambda: clock.now)
    saves = Saves(clock)
    module = make_module(steps=40, checkpoint_seconds=100.0, validate_every=20)
    monkeypatch.setattr(Trainer, "save_checkpoint", saves)
    if slow == "validation":

        def count(*_: object) -> tuple[Counts, int]:
            clock.now += 110.0
            return np.ones((3, 3), np.int64), 0

        monkeypatch.setattr("geoseg.training.validation.Validation._count", count)
    train(module, tmp_path, clock, validate=slow == "validation")
    gaps = [later - one for one, later in itertools.pairwise([0.0, *saves.times])]
    # Twice at most, and not at each step from then on.
    assert sum(gap < 50 for gap in gaps) <= 3
    assert len(gaps) < 10


def test_new_best_weights_come_with_a_checkpoint_that_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {2: 0.5, 4: 0.9}
    monkeypatch.setattr(
        "geoseg.training.validation.score_of",
        lambda _, step: Score(step, scores[step], (0.1,) * 3, 0.5),
    )

    class Leave(Callback):
        """Ends the run before the step after the first validation."""

        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    module = make_module(steps=4, validate_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(module, tmp_path, Leave(), validate=True)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    # Killed before that one was written, it would be of another step than best.ckpt.
    torch.save(
        torch.load(tmp_path / "best.ckpt", weights_only=True) | {"global_step": 3},
        tmp_path / "best.ckpt",
    )
    scores[4] = 0.1
    again = make_module(steps=4, validate_every=2)
    outcome = train(again, tmp_path, validate=True)
    assert outcome == Outcome(4, 3, None)
    card = write_card(SPEC, outcome, training=["a"], validation=["b"], recipe={})
    assert "after step 3, the best by mIoU on the validation scenes" in card


def test_a_recipe_that_is_not_a_number_is_the_same_again(tmp_path: Path) -> None:
    recipe: dict[str, object] = {"data.nodata": float("nan")}
    first = train(make_module(recipe=recipe), tmp_path)
    assert train(make_module(recipe=recipe), tmp_path) == first


def test_a_recipe_may_write_a_number_otherwise(tmp_path: Path) -> None:
    recipe: dict[str, object] = {"model.dropout": 0.0, "chips.scale": [1.0, 2.0]}
    first = train(make_module(recipe=recipe), tmp_path)
    same: dict[str, object] = {"model.dropout": 0, "chips.scale": [1, 2]}
    assert train(make_module(recipe=same), tmp_path) == first
    for other in ({"model.dropout": False}, {"chips.scale": [1, 2, 3]}):
        with pytest.raises(ConfigError, match="begun with another recipe"):
            train(make_module(recipe=same | other), tmp_path)


class Clock(Callback):
    """Lets each step take as many seconds, and one of them 300."""

    def __init__(self, seconds: float = 30.0, slow: int | None = None) -> None:
        self.now, self.seconds, self.slow = 0.0, seconds, slow

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        late = trainer.global_step == self.slow
        self.now += 300.0 if late else self.seconds


class Saves:
    """Stands for `save_checkpoint`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def __call__(self, *_: object, **__: object) -> None:
        self.times.append(self.clock.now)
