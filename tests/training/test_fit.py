"""A run that is begun, stopped, gone on with, refused and finished."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from training_runs import CLASSES, TILE, make_module, train

from geoseg.errors import ConfigError, FileOutputError, SceneError, TrainingError
from geoseg.inference import Predictor
from geoseg.training.checkpoints import AtomicCheckpointIO
from geoseg.training.fit import Outcome, _memory_errors, make_trainer, uses_cuda
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
    with pytest.raises(FileOutputError, match=r"\(No space left on device\); the"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
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

        def score(*_: object) -> Score:
            clock.now += 110.0
            return Score(0, 0.0, (0.1,) * 3, 0.5)

        monkeypatch.setattr("geoseg.training.validation.Validation._score", score)
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
    assert train(again, tmp_path, validate=True) == Outcome(4, 3, None)


def test_a_recipe_that_is_not_a_number_is_the_same_again(tmp_path: Path) -> None:
    recipe: dict[str, object] = {"data.nodata": float("nan")}
    first = train(make_module(recipe=recipe), tmp_path)
    assert train(make_module(recipe=recipe), tmp_path) == first


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
