"""The training loop: the same run however often it is stopped."""

from __future__ import annotations

import csv
from pathlib import Path

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


def make_loop(folder: Path, *, steps: int = 4, stop: int | None = None) -> TrainingLoop:
    """Build the loop of a very small model; it stops for good after `stop` steps."""
    torch.manual_seed(0)
    model = tiny_models.segmenter(
        backbone_config=tiny_models.adapter_keys(freeze_backbone=False), num_labels=3
    )
    scene = LabelledScene("made", *labelled_scenes.draw(100, 90))
    chips = ChipSampler([scene], 3, ChipConfig(size=48))
    config = LoopConfig(
        steps=steps,
        batch_size=2,
        warmup_steps=2,
        final_share=0.25,
        final_chip_size=64,
        final_batch_size=1,
        log_every=1,
    )
    loss: nn.Module = DenseMask2FormerLoss(32, 3, 2.0, 1.0)
    if stop is not None:
        loss = Stopping(loss, stop)
    return TrainingLoop(
        model, loss, chips, tiny_models.MEAN, tiny_models.STD, config, folder
    )


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
    first = make_loop(tmp_path / "stopped", stop=2)
    with pytest.raises(KeyboardInterrupt):
        first.run(ignore)
    first.save()
    second = make_loop(tmp_path / "stopped")
    assert second.step == 2
    assert_same(second.run(ignore).state_dict(), wanted)
    assert_same(second.model.state_dict(), straight.model.state_dict())
    assert_same(second.loss.state_dict(), straight.loss.state_dict())
    assert steps_logged(tmp_path / "stopped") == [1, 2, 3, 4]


def test_weights_change_and_the_average_follows(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    before = {k: v.clone() for k, v in loop.model.state_dict().items()}
    average = loop.run(ignore)
    assert not average.training
    name = "class_predictor.weight"
    trained, averaged = loop.model.state_dict()[name], average.state_dict()[name]
    assert not torch.equal(trained, before[name])
    assert not torch.equal(averaged, before[name])
    assert not torch.equal(averaged, trained)


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
