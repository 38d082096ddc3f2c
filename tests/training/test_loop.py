"""The training loop: the same run however often it is stopped."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import labelled_scenes
import pytest
import tiny_models
import torch
from torch import Tensor, nn

from geoseg.data.chips import ChipConfig, ChipSampler
from geoseg.data.labelled import LabelledScene
from geoseg.errors import ConfigError
from geoseg.training.loop import LoopConfig, TrainingLoop
from geoseg.training.losses import DenseMask2FormerLoss


def make_loop(
    folder: Path,
    *,
    stop: int | None = None,
    recipe: dict[str, object] | None = None,
    **changes: Any,  # noqa: ANN401 (fields of LoopConfig)
) -> TrainingLoop:
    """Build the loop of a very small model; it stops for good after `stop` steps."""
    torch.manual_seed(0)
    model = tiny_models.segmenter(
        backbone_config=tiny_models.adapter_keys(freeze_backbone=False), num_labels=3
    )
    scene = LabelledScene("made", *labelled_scenes.draw(100, 90))
    chips = ChipSampler([scene], 3, ChipConfig(size=48))
    fields: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "warmup_steps": 2,
        "final_share": 0.25,
        "final_chip_size": 64,
        "final_batch_size": 1,
        "log_every": 1,
    }
    config = LoopConfig(**{**fields, **changes})
    loss: nn.Module = DenseMask2FormerLoss(32, 3, 2.0, 1.0)
    if stop is not None:
        loss = Stopping(loss, stop)
    mean, std = tiny_models.MEAN, tiny_models.STD
    return TrainingLoop(model, loss, chips, mean, std, config, folder, recipe)


class Stopping(nn.Module):
    """A loss that ends the run, as Ctrl-C does, before some step."""

    def __init__(self, inner: nn.Module, steps: int) -> None:
        super().__init__()
        self.inner, self.left = inner, steps

    def forward(self, *arguments: object) -> dict[str, Tensor]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        terms: dict[str, Tensor] = self.inner(*arguments)
        return terms

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        return self.inner.state_dict()


def ignore(_: int, __: dict[str, float]) -> None:
    """Take no note of progress."""


def steps_logged(folder: Path) -> list[int]:
    with (folder / "log.csv").open(newline="") as stream:
        return [int(row["step"]) for row in csv.DictReader(stream)]


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    straight = make_loop(tmp_path / "straight")
    wanted = straight.run(ignore).state_dict()
    # Killed without a word: only what was saved on the way is there.
    first = make_loop(tmp_path / "stopped", stop=2, checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        first.run(ignore)
    second = make_loop(tmp_path / "stopped")
    assert second.step == 2
    assert_same(second.run(ignore).state_dict(), wanted)
    assert_same(second.model.state_dict(), straight.model.state_dict())
    assert_same(second.loss.state_dict(), straight.loss.state_dict())
    assert steps_logged(tmp_path / "stopped") == [1, 2, 3, 4]


def test_the_average_follows_weights_and_norms_step_by_step(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, steps=3, ema_decay=0.15)
    expected = {k: v.clone().double() for k, v in loop.model.state_dict().items()}
    seen: list[dict[str, Tensor]] = []

    def follow(*_: object) -> None:
        state = {k: v.clone().double() for k, v in loop.model.state_dict().items()}
        # Short at first: 1/10, then the 0.15 asked for, below 2/11 and 3/12.
        decay = 0.1 if not seen else 0.15
        for name, value in expected.items():
            expected[name] = decay * value + (1 - decay) * state[name]
        seen.append(state)

    average = loop.run(follow)
    assert len(seen) == 3
    assert not average.training
    norms = "model.pixel_level_module.encoder.norm1"
    for name in (
        "class_predictor.weight",
        "class_predictor.bias",
        f"{norms}.running_mean",
        f"{norms}.running_var",
    ):
        found = average.state_dict()[name].double()
        assert not torch.equal(seen[0][name], seen[2][name])
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6)


def test_the_model_sees_what_it_will_see_in_production(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, steps=1, final_share=0)
    images, _ = loop.sampler.batch(0, 0, 2, 48)
    seen: list[Tensor] = []
    loop.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    loop.run(ignore)
    mean = torch.tensor(tiny_models.MEAN).view(1, 3, 1, 1)
    std = torch.tensor(tiny_models.STD).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], (images - mean) / std)


def test_matrices_decay_and_vectors_do_not(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, weight_decay=0.25)
    decayed, free = loop.optimizer.param_groups
    assert decayed["weight_decay"] == 0.25
    assert free["weight_decay"] == 0
    assert {p.ndim > 1 for p in decayed["params"]} == {True}
    assert {p.ndim > 1 for p in free["params"]} == {False}
    trained = [*loop.model.parameters(), *loop.loss.parameters()]
    assert len(decayed["params"]) + len(free["params"]) == len(trained)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, steps=1, clip_norm=1e-3)
    loop.run(ignore)
    grads = [p.grad for g in loop.optimizer.param_groups for p in g["params"]]
    norm = torch.stack([grad.norm() for grad in grads if grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def test_another_recipe_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    begun: dict[str, object] = {"train.seed": 0, "data.scenes": ["a", "b"]}
    make_loop(tmp_path, recipe=begun).save()
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    make_loop(tmp_path, recipe={"train.seed": 0, "data.scenes": ("a", "b")})
    with pytest.raises(ConfigError, match=r"train\.seed is 1, and .* with 0; give"):
        make_loop(tmp_path, recipe={**begun, "train.seed": 1})
    with pytest.raises(ConfigError, match=r"data\.scenes is None"):
        make_loop(tmp_path, recipe={"train.seed": 0})
    assert (tmp_path / "checkpoint.pt").read_bytes() == whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("log_every", 0),
        ("final_chip_size", 0),
        ("learning_rate", 0.0),
        ("clip_norm", -1.0),
        ("ema_decay", 1.5),
        ("final_share", -0.1),
    ],
)
def test_numbers_that_make_no_training_are_refused(field: str, value: float) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=f"train.{field} is {value}; use"):
        LoopConfig(**fields)


def test_finished_run_trains_no_more(tmp_path: Path) -> None:
    wanted = make_loop(tmp_path).run(ignore).state_dict()
    calls: list[int] = []
    again = make_loop(tmp_path).run(lambda step, _: calls.append(step))
    assert calls == []
    assert_same(again.state_dict(), wanted)


def test_steps_taken_again_are_logged_once(tmp_path: Path) -> None:
    first = make_loop(tmp_path, stop=3)
    with pytest.raises(KeyboardInterrupt):
        first.run(ignore)  # killed before it saved
    make_loop(tmp_path).run(ignore)
    assert steps_logged(tmp_path) == [1, 2, 3, 4]


def test_log_is_cut_to_the_checkpoint(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    loop.run(ignore)
    state = torch.load(loop.checkpoint, weights_only=True)
    torch.save({**state, "step": 2}, loop.checkpoint)
    make_loop(tmp_path)
    assert steps_logged(tmp_path) == [1, 2]


def test_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(tmp_path)
    loop.save()
    whole = loop.checkpoint.read_bytes()

    def fail(_: object, stream: object) -> None:
        assert hasattr(stream, "write")
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        loop.save()
    assert loop.checkpoint.read_bytes() == whole
    assert make_loop(tmp_path).step == 0


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_foreign_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ConfigError, match="is not a checkpoint of this model"):
        make_loop(tmp_path)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    make_loop(tmp_path).save()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["model"]["class_predictor.weight"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="set another out"):
        make_loop(tmp_path)


def test_loss_or_gradient_that_is_not_finite_stops_before_the_weights_change(
    tmp_path: Path,
) -> None:
    for where, poison in (("loss", torch.nan), ("gradient", 1.0)):
        loop = make_loop(tmp_path / where)
        before = {k: v.clone() for k, v in loop.model.named_parameters()}
        loop.loss = Poison(loop.loss, poison)
        with pytest.raises(ConfigError, match=rf"{where}.* is nan at step 0; lower"):
            loop.run(ignore)
        assert_same(dict(loop.model.named_parameters()), before)


class Poison(nn.Module):
    """A loss of NaN, or one whose gradient is NaN."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, *arguments: object) -> dict[str, Tensor]:
        total = self.inner(*arguments)["total"]
        # The derivative of the root is infinite at 0, and 0 * infinity is NaN.
        return {"total": total * self.factor + (0 * total).abs().sqrt()}


def test_learning_rate_warms_up_and_decays(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, steps=10)
    rates = [loop.learning_rate(step) for step in range(11)]
    assert rates[0] < rates[1] > rates[2]
    assert rates == sorted(rates[:1]) + sorted(rates[1:], reverse=True)
    assert rates[10] == 0


def test_last_steps_see_larger_chips(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    seen: list[tuple[int, ...]] = []
    loop.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(tuple(named["pixel_values"].shape)),
        with_kwargs=True,
    )
    loop.run(ignore)
    assert seen == [(2, 3, 48, 48)] * 3 + [(1, 3, 64, 64)]
