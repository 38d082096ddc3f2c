"""One optimiser step: what is trained, by how much, and what stays as it is."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from training_runs import gradients, hold_norms, made_model, make_module, train

from geoseg.errors import ConfigError, TrainingError
from geoseg.models import ViTAdapterBackbone
from geoseg.training.average import start_average, update_average
from geoseg.training.batches import StepBatches, model_seed, sample_seed
from geoseg.training.config import LoopConfig
from geoseg.training.fit import make_trainer
from geoseg.training.module import SegmentationModule
from geoseg.training.parameters import SCALE, parameter_groups


def vit_of(module: SegmentationModule) -> nn.Module:
    encoder = module.model.model.pixel_level_module.encoder
    assert isinstance(encoder, ViTAdapterBackbone)
    backbone: nn.Module = encoder.backbone
    return backbone


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def attach(module: SegmentationModule, folder: Path) -> SegmentationModule:
    """Give the module a trainer, for what it asks of one outside of `fit`."""
    module.trainer = make_trainer(module.config, folder, [], cuda=False)
    module.trainer.strategy.connect(module)
    return module


class Watch(Callback):
    """Records a state after each step."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.states.append(state_of(self.module))


def test_a_frozen_backbone_is_the_same_bit_by_bit_after_training(
    tmp_path: Path,
) -> None:
    model = made_model(frozen=True)
    encoder: Any = model.model.pixel_level_module.encoder
    # As other encoders have them: they must not follow the images either.
    encoder.backbone.norm = nn.Sequential(
        encoder.backbone.norm, Transposed(nn.BatchNorm1d(32))
    )
    encoder.train()
    module = make_module(model=model, learning_rate=0.05)
    vit = vit_of(module)
    before, head = state_of(vit), state_of(module.model.class_predictor)
    train(module, tmp_path)
    assert_same(state_of(vit), before)
    assert not any(part.training for part in vit.modules())
    assert all(p.grad is None and not p.requires_grad for p in vit.parameters())
    assert not torch.equal(module.model.class_predictor.weight, head["weight"])
    trained = {
        id(p) for g in module.trainer.optimizers[0].param_groups for p in g["params"]
    }
    assert not trained & {id(p) for p in vit.parameters()}


class Transposed(nn.Module):
    """A batch norm over tokens (B, N, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens.transpose(1, 2))
        return normed.transpose(1, 2)


@pytest.mark.parametrize("frozen", [False, True])
def test_all_that_is_trained_gets_a_gradient(tmp_path: Path, frozen: bool) -> None:
    module = attach(make_module(frozen=frozen), tmp_path)
    module.backward_all(StepBatches(module.source, module.config, 48)[0])
    named = {name for name, p in module.named_parameters() if p.requires_grad}
    assert gradients(module).keys() == named
    assert any(".backbone." in name for name in named) is not frozen


@pytest.mark.parametrize("size", [1, 2])
def test_forward_passes_of_few_chips_give_the_same_gradients(
    tmp_path: Path, size: int
) -> None:
    found = []
    for micro in (None, size):
        module = make_module(batch_size=3, micro_batch_size=micro, scenes=3)
        hold_norms(attach(module, tmp_path))
        batch = StepBatches(module.source, module.config, 48)[1]
        terms = module.backward_all(batch)
        found.append((terms, gradients(module)))
    (terms, wanted), (parts, others) = found
    assert parts == pytest.approx(terms, rel=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-5)


def test_every_draw_follows_seed_step_and_chip(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []
    images = []
    for seed in (0, 5):
        module = make_module(seed=seed, batch_size=4, micro_batch_size=1)
        module.loss.register_forward_pre_hook(
            lambda _, given: seen.append((torch.initial_seed(), given[3]))
        )
        attach(module, tmp_path)
        batch = StepBatches(module.source, module.config, 48, 1, 2)[1]
        images.append(batch.images)
        module.backward_all(batch)
    assert seen == [
        (model_seed(seed, 1), [sample_seed(seed, 1, chip)])
        for seed in (0, 5)
        for chip in (2, 3)
    ]
    assert not torch.equal(*images)
    several = {sample_seed(*key) for key in itertools.product(range(3), repeat=3)}
    several |= {model_seed(*key) for key in itertools.product(range(3), repeat=2)}
    assert len(several) == 27 + 9


def test_ranks_share_the_chips_of_one_process() -> None:
    module = make_module(batch_size=4)
    whole = StepBatches(module.source, module.config, 48)[0]
    halves = [
        StepBatches(module.source, module.config, 48, rank, 2)[0] for rank in (0, 1)
    ]
    assert [half.first for half in halves] == [0, 2]
    assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
    assert torch.equal(torch.cat([half.labels for half in halves]), whole.labels)


def test_the_average_follows_weights_and_norms_step_by_step(tmp_path: Path) -> None:
    module = make_module(steps=3, ema_decay=0.15, frozen=True)
    watch = Watch(module.model)
    expected = {k: v.double() for k, v in state_of(module.model).items()}
    train(module, tmp_path, watch)
    # Short at first: 1/10, then the 0.15 asked for, below 2/11 and 3/12.
    for decay, state in zip((0.1, 0.15, 0.15), watch.states, strict=True):
        for name, value in expected.items():
            expected[name] = decay * value + (1 - decay) * state[name].double()
    average = module.average.state_dict()
    norms = "model.pixel_level_module.encoder.norm1"
    for name in (
        "class_predictor.weight",
        "class_predictor.bias",
        f"{norms}.running_mean",
        f"{norms}.running_var",
    ):
        assert not torch.equal(watch.states[0][name], watch.states[2][name])
        found = average[name].double()
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6)
    counter = f"{norms}.num_batches_tracked"
    assert torch.equal(average[counter], watch.states[2][counter])
    assert not any(part.training for part in module.average.modules())


def test_the_average_shares_what_is_frozen() -> None:
    model = made_model(frozen=True)
    average = start_average(model.train())
    assert not any(part.training for part in average.modules())
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    assert {(a is b, b.requires_grad) for a, b in pairs} == {
        (True, False),
        (False, True),
    }
    update_average(average, model, 3, 0.5)


def test_the_model_sees_what_it_will_see_in_production(tmp_path: Path) -> None:
    module = make_module(steps=1, final_share=0)
    images = torch.stack([module.source.chip((0, 0, i), 48)[0] for i in range(2)])
    seen: list[Tensor] = []
    module.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    attach(module, tmp_path)
    module.backward_all(StepBatches(module.source, module.config, 48)[0])
    mean = torch.tensor(tiny_models.MEAN).view(1, 3, 1, 1)
    std = torch.tensor(tiny_models.STD).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], (images - mean) / std)


def test_last_steps_see_larger_chips() -> None:
    module = make_module()
    batches = StepBatches(module.source, module.config, 48)
    shapes = [tuple(batches[step].images.shape) for step in range(4)]
    assert shapes == [(2, 3, 48, 48)] * 3 + [(1, 3, 64, 64)]


def test_matrices_decay_and_vectors_do_not() -> None:
    module = make_module(weight_decay=0.25)
    decayed, free = module.configure_optimizers().param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.25, 0)
    assert {p.ndim > 1 for p in decayed["params"]} == {True}
    assert {p.ndim > 1 for p in free["params"]} == {False}
    trained = [p for p in module.parameters() if p.requires_grad]
    assert len(decayed["params"]) + len(free["params"]) == len(trained)


def test_layers_learn_the_slower_the_nearer_they_are_to_the_input() -> None:
    module = make_module(layer_decay=0.5)
    vit = vit_of(module)
    groups = parameter_groups([module.model], vit, module.config)
    scales = {id(p): group[SCALE] for group in groups for p in group["params"]}
    found = {
        name: scales[id(p)] for name, p in vit.named_parameters() if p.requires_grad
    }
    assert found["embeddings.patch_embeddings.weight"] == 0.5**5
    assert found["embeddings.cls_token"] == 0.5**5
    assert found["model.layer.0.norm1.weight"] == 0.5**4
    assert found["model.layer.3.mlp.up_proj.weight"] == 0.5
    assert found["norm.weight"] == 1
    assert scales[id(module.model.class_predictor.weight)] == 1


class Rates(Callback):
    """Records the learning rates of the groups, and the gradients' norm."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.norms: list[float] = []

    def on_before_optimizer_step(
        self,
        _: object,
        module: nn.Module,
        optimizer: Any,  # noqa: ANN401
    ) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        norms = [gradient.norm() for gradient in gradients(module).values()]
        self.norms.append(float(torch.stack(norms).norm()))


def test_rates_follow_the_schedule_and_gradients_are_clipped(tmp_path: Path) -> None:
    module = make_module(layer_decay=0.5, clip_norm=1e-3)
    rates = Rates()
    train(module, tmp_path, rates)
    for step, found in enumerate(rates.rates):
        rate = module.config.learning_rate_at(step)
        assert max(found) == pytest.approx(rate)
        assert min(found) == pytest.approx(rate * 0.5**5)
    assert rates.norms == pytest.approx([1e-3] * 4, rel=1e-2)


def test_learning_rate_warms_up_and_decays() -> None:
    config = LoopConfig(steps=10, warmup_steps=2)
    rates = [config.learning_rate_at(step) for step in range(11)]
    assert rates[0] < rates[1] > rates[2]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[10] == 0


class Poison(nn.Module):
    """A loss of NaN, or one whose gradient is NaN."""

    def __init__(self, inner: Any, factor: float) -> None:  # noqa: ANN401
        super().__init__()
        self.inner, self.factor, self.calls = inner, factor, 0
        self.count, self.classifier = inner.count, inner.classifier

    def forward(self, *arguments: object) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.inner(*arguments)
        self.calls += 1
        if self.calls < 3:
            return terms
        # The derivative of the root is infinite at 0, and 0 * infinity is NaN.
        total = terms["total"]
        return {**terms, "total": total * self.factor + (0 * total).abs().sqrt()}


@pytest.mark.parametrize(("name", "poison"), [("loss", torch.nan), ("gradient", 1.0)])
def test_what_is_not_finite_stops_before_the_weights_change(
    tmp_path: Path, name: str, poison: float
) -> None:
    module = make_module(checkpoint_seconds=1e-3, final_share=0)
    poisoned: Any = Poison(module.loss, poison)
    poisoned.calls = -1  # the probe of memory
    module.loss = poisoned
    with pytest.raises(TrainingError, match=rf"{name}.* is nan at step 2; the last"):
        train(module, tmp_path)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    for key, parameter in module.model.named_parameters():
        assert torch.equal(parameter, last["state_dict"][f"model.{key}"]), key
    assert all(bool(v.isfinite().all()) for v in last["state_dict"].values())


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
        ("weight_decay", -1.0),
        ("micro_batch_size", 0),
        ("patience", 0),
        ("checkpoint_seconds", 601.0),
    ],
)
def test_numbers_that_make_no_training_are_refused(field: str, value: float) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=f"train.{field} is {value:g}.*; use"):
        LoopConfig(**fields)


def test_devices_share_chips_evenly() -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 4, which 3 devices"):
        LoopConfig(batch_size=4, devices=3)
