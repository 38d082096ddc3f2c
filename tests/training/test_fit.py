"""A run that is begun, stopped, gone on with, refused and finished."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from training_runs import make_module, train

from geoseg.errors import ConfigError, SceneError, TrainingError
from geoseg.inference import Predictor
from geoseg.training.fit import _memory_errors, make_trainer, uses_cuda
from geoseg.training.module import SegmentationModule
from geoseg.training.progress import Listener, Score


class Stop(Callback):
    """Saves after one step and ends the run after another, as Ctrl-C does."""

    def __init__(self, save: int, stop: int) -> None:
        self.save, self.stop = save, stop

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.save:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "last.ckpt")
        if trainer.global_step == self.stop:
            raise KeyboardInterrupt


class Heard(Listener):
    """Records what a run tells."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.scores: list[tuple[int, bool]] = []

    def step(self, step: int, terms: dict[str, float]) -> None:
        self.steps.append(step)

    def validated(self, score: Score, best: bool) -> None:
        self.scores.append((score.step, best))


def state_of(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def column(path: Path, name: str) -> list[str]:
    with path.open(newline="") as stream:
        return [row[name] for row in csv.DictReader(stream)]


def test_a_run_that_was_stopped_equals_one_that_was_not(tmp_path: Path) -> None:
    straight = train(make_module(), tmp_path / "straight", validate=True)
    # Steps 3 and 4 and the second validation are to be done (again).
    stop = Stop(save=2, stop=3)
    with pytest.raises(KeyboardInterrupt):
        train(make_module(), tmp_path / "stopped", stop, validate=True)
    heard = Heard()
    resumed = train(make_module(), tmp_path / "stopped", validate=True, listener=heard)
    assert heard.steps == [3, 4]
    assert resumed == straight
    for name in ("last.ckpt", "best.ckpt"):
        assert_same(
            state_of(tmp_path / "stopped" / name),
            state_of(tmp_path / "straight" / name),
        )
    for name in ("log.csv", "validation.csv"):
        for key in ("step", "total" if name == "log.csv" else "miou"):
            assert column(tmp_path / "stopped" / name, key) == column(
                tmp_path / "straight" / name, key
            )


@pytest.mark.slow
def test_processes_that_load_chips_change_nothing(tmp_path: Path) -> None:
    train(make_module(), tmp_path / "alone")
    # Each of two loads every other step, and the run goes on amid them.
    with pytest.raises(KeyboardInterrupt):
        train(make_module(workers=2), tmp_path / "helped", Stop(save=1, stop=2))
    heard = Heard()
    train(make_module(workers=2), tmp_path / "helped", listener=heard)
    assert heard.steps == [2, 3, 4]
    assert_same(
        state_of(tmp_path / "helped" / "last.ckpt"),
        state_of(tmp_path / "alone" / "last.ckpt"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_scene_that_broke_is_told_in_its_own_words(
    tmp_path: Path, workers: int
) -> None:
    module = make_module(workers=workers)
    module.source = Broken()
    with pytest.raises(SceneError, match=r"^it broke$"):
        train(module, tmp_path)


class Broken:
    """Gives no chip."""

    def chip(self, key: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
        raise SceneError("it broke")


def test_bfloat16_is_for_arithmetic_and_not_for_weights(tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        outcome = train(
            make_module(precision=precision), tmp_path / precision, validate=True
        )
        assert outcome.best_miou is not None
    exact, rounded = (
        column(tmp_path / precision / "log.csv", "total")
        for precision in ("float32", "bfloat16")
    )
    assert rounded != exact
    # Before the weights part.
    assert float(rounded[0]) == pytest.approx(float(exact[0]), rel=0.02)
    state = state_of(tmp_path / "bfloat16" / "last.ckpt")
    assert torch.bfloat16 not in {value.dtype for value in state.values()}
    name = "average.class_predictor.weight"
    assert not torch.equal(state[name], state[name].bfloat16().float())


def test_finished_run_trains_no_more(tmp_path: Path) -> None:
    first = train(make_module(), tmp_path, validate=True)
    again, heard = make_module(), Heard()
    assert train(again, tmp_path, validate=True, listener=heard) == first
    assert (heard.steps, heard.scores) == ([], [])
    best = state_of(tmp_path / "best.ckpt")
    averages = {f"average.{k}": v for k, v in again.average.state_dict().items()}
    assert_same(averages, {k: v for k, v in best.items() if k.startswith("average.")})


def test_best_weights_ship_and_training_ends_when_nothing_gets_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = iter([0.2, 0.1, 0.5, 0.4, 0.5, 0.9])
    monkeypatch.setattr(
        "geoseg.training.validation.score_of",
        lambda _, step: Score(step, next(rising), (0.1,) * 3, 0.5),
    )
    scored: list[nn.Module] = []

    def watched(model: nn.Module, *arguments: Any) -> Predictor:  # noqa: ANN401
        scored.append(model)
        return Predictor(model, *arguments)

    monkeypatch.setattr("geoseg.training.validation.Predictor", watched)
    heard = Heard()
    module = make_module(steps=10, validate_every=1, patience=2)
    outcome = train(module, tmp_path, validate=True, listener=heard)
    assert scored == [module.average] * 5  # what would ship
    better = [True, False, True, False, False]  # one miss is forgiven
    assert heard.scores == list(enumerate(better, 1))
    assert (outcome.steps, outcome.best_step, outcome.best_miou) == (5, 3, 0.5)
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["global_step"] == 3
    assert "optimizer_states" not in best
    name = "class_predictor.weight"
    shipped = module.average.state_dict()[name]
    assert torch.equal(shipped, best["state_dict"][f"average.{name}"])
    last = state_of(tmp_path / "last.ckpt")
    assert not torch.equal(shipped, last[f"average.{name}"])
    # It stays ended.
    again = make_module(steps=10, validate_every=1, patience=2)
    assert train(again, tmp_path, validate=True) == outcome


def test_another_recipe_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    begun: dict[str, object] = {"train.seed": 0, "data.scenes": ["a", "b"]}
    train(make_module(recipe=begun), tmp_path)
    whole = (tmp_path / "last.ckpt").read_bytes()
    train(make_module(recipe={**begun, "data.scenes": ("a", "b")}), tmp_path)
    other: dict[str, object] = {"train.seed": 1, "data.scenes": ["a"], "new": 2}
    with pytest.raises(
        ConfigError,
        match=r"\(data\.scenes is \['a'\], was \['a', 'b'\]; new is 2, was None; "
        r"train\.seed is 1, was 0\); give the same, or another out",
    ):
        train(make_module(recipe=other), tmp_path)
    assert (tmp_path / "last.ckpt").read_bytes() == whole


def test_logs_tell_of_each_step_once_and_pictures_are_drawn(tmp_path: Path) -> None:
    train(make_module(), tmp_path, validate=True)
    assert column(tmp_path / "log.csv", "step") == ["1", "2", "3", "4"]
    assert column(tmp_path / "validation.csv", "step") == ["2", "4"]
    rows = (tmp_path / "validation.csv").read_text().splitlines()
    assert rows[0].endswith("miou,accuracy,iou water,iou land,iou road")
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == [
        f"step-00000{step}-{name}.png"
        for step in (2, 4)
        for name in ("another", "held_out")
    ]
    with Image.open(tmp_path / "pictures" / pictures[0]) as picture:
        assert picture.width > 3 * 90
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/total")] == [1, 2, 3, 4]
    assert [e.step for e in events.Scalars("validation/miou")] == [2, 4]
    assert events.Tags()["images"] == ["held_out", "another"]


def test_log_is_cut_to_the_checkpoint(tmp_path: Path) -> None:
    module = make_module()
    with pytest.raises(KeyboardInterrupt):
        train(module, tmp_path, Stop(save=2, stop=3))
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write("4,17")  # killed while it was written
    with pytest.raises(KeyboardInterrupt):
        train(make_module(), tmp_path, Stop(save=-1, stop=3))
    assert column(tmp_path / "log.csv", "step") == ["1", "2", "3"]


def test_several_devices_synchronise_batch_norms_on_gpus_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = make_module(devices=2, final_batch_size=2)
    given: list[dict[str, Any]] = []

    def stand(**arguments: Any) -> None:  # noqa: ANN401
        given.append(arguments)

    monkeypatch.setattr("geoseg.training.fit.Trainer", stand)
    for cuda, devices in ((False, 1), (True, 1), (False, 2), (True, 2)):
        config = make_module(devices=devices, final_batch_size=2).config
        make_trainer(config, tmp_path, [], cuda=cuda)
    assert [one["sync_batchnorm"] for one in given] == [False, False, False, True]
    # What Lightning then does to the module, by type.
    from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm

    norms = [n for n in module.modules() if isinstance(n, torch.nn.BatchNorm2d)]
    assert norms
    names = module.state_dict().keys()
    converted = TorchSyncBatchNorm().apply(module)
    found = [
        type(part)
        for part in converted.modules()
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert found == [torch.nn.SyncBatchNorm] * len(norms)
    assert converted.state_dict().keys() == names


def test_gpus_that_are_not_there_are_refused() -> None:
    config = make_module().config
    assert not uses_cuda(config)
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="torch sees 0"):
        uses_cuda(make_module(accelerator="cuda").config)


def test_a_full_gpu_says_what_to_set() -> None:
    module: SegmentationModule = make_module(batch_size=8)
    with (
        pytest.raises(TrainingError, match=r"8 chips .* set train.micro_batch_size=4"),
        _memory_errors(module),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    one: SegmentationModule = make_module(batch_size=8, micro_batch_size=1)
    with (
        pytest.raises(TrainingError, match=r"1 chips .* pass; set chips\.size and "),
        _memory_errors(one),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
