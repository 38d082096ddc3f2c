"""Losses of a Mask2Former that is trained on dense labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import tiny_models
import torch
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.data.labelled import IGNORE
from geoseg.errors import ConfigError
from geoseg.models import query_logits
from geoseg.training.config import LossConfig
from geoseg.training.losses import DenseMask2FormerLoss, mask_targets

WEIGHTS = LossConfig(set_weight=0.7, pixel_weight=2.0, auxiliary_weight=0.5)


@pytest.fixture(scope="module")
def model() -> Mask2FormerForUniversalSegmentation:
    """A model whose three layers of masks are all scored."""
    return tiny_models.segmenter(decoder_layers=3)


@pytest.fixture
def loss(model: Mask2FormerForUniversalSegmentation) -> DenseMask2FormerLoss:
    """The loss of that model."""
    torch.manual_seed(0)
    return DenseMask2FormerLoss(model, WEIGHTS)


def pixels(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def some_labels() -> Tensor:
    """Labels of three images: of four classes, of one, and of none."""
    labels = torch.randint(0, 4, (3, 64, 64), generator=torch.manual_seed(0))
    labels[1] = 2
    labels[2] = IGNORE
    return labels


def hf_loss(
    model: Mask2FormerForUniversalSegmentation, images: Tensor, labels: Tensor
) -> Tensor:
    """What transformers itself computes."""
    masks, classes = mask_targets(labels)
    output = model(pixel_values=images, mask_labels=masks, class_labels=classes)
    assert output.loss is not None
    found: Tensor = output.loss.squeeze()
    return found


def test_targets_are_one_mask_for_each_class_present() -> None:
    labels = torch.tensor([[[0, 2], [2, IGNORE]], [[IGNORE, IGNORE]] * 2])
    masks, classes = mask_targets(labels)
    assert [c.tolist() for c in classes] == [[0, 2], []]
    assert masks[0].tolist() == [[[1, 0], [0, 0]], [[0, 1], [1, 0]]]
    assert masks[1].shape == (0, 2, 2)
    assert masks[0].dtype == torch.float32


def test_set_loss_of_an_image_is_transformers_own(
    model: Mask2FormerForUniversalSegmentation, loss: DenseMask2FormerLoss
) -> None:
    images, labels = pixels(1), some_labels()[:1]
    terms = loss(model, images, labels, [17], loss.count(labels))
    torch.manual_seed(17)
    torch.testing.assert_close(
        terms["set"], hf_loss(model, images, labels), rtol=1e-6, atol=0
    )


def test_set_loss_of_a_batch_is_transformers_own_on_the_same_points(
    model: Mask2FormerForUniversalSegmentation,
    loss: DenseMask2FormerLoss,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = some_labels()
    monkeypatch.setattr(torch, "rand", same_points())
    wanted = hf_loss(model, pixels(), labels)
    found = loss(model, pixels(), labels, [1, 2, 3], loss.count(labels))["set"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def same_points() -> Callable[..., Tensor]:
    """Stand for `torch.rand`: every mask gets the same points, in every call."""
    points = torch.rand(1, 4096, 2, generator=torch.Generator().manual_seed(1))

    def rand(masks: int, count: int, _: int, **__: object) -> Tensor:
        return points[:, :count].repeat(masks, 1, 1)

    return rand


def test_parts_of_a_step_add_up_to_it_with_their_gradients(
    model: Mask2FormerForUniversalSegmentation, loss: DenseMask2FormerLoss
) -> None:
    images, labels, seeds = pixels(), some_labels(), [5, 6, 7]
    counts = loss.count(labels)
    parts = [slice(0, 1), slice(1, 3)]
    torch.testing.assert_close(sum(loss.count(labels[p]) for p in parts), counts)
    weight = model.class_predictor.weight.requires_grad_()
    wanted = loss(model, images, labels, seeds, counts)
    (whole,) = torch.autograd.grad(wanted["total"], weight)
    total, gradient = torch.zeros(()), torch.zeros_like(whole)
    for part in parts:
        terms = loss(model, images[part], labels[part], seeds[part], counts)
        total += terms["total"]
        gradient += torch.autograd.grad(terms["total"], weight)[0]
    torch.testing.assert_close(total, wanted["total"])
    torch.testing.assert_close(gradient, whole, rtol=1e-5, atol=1e-7)


def test_points_of_an_image_depend_on_its_seed_alone(
    model: Mask2FormerForUniversalSegmentation, loss: DenseMask2FormerLoss
) -> None:
    labels = some_labels()[[0, 0]]
    images = pixels()[[0, 0]]
    counts = loss.count(labels)
    values = {
        seeds: float(loss(model, images, labels, list(seeds), counts)["set"].detach())
        for seeds in itertools.product((1, 2), repeat=2)
    }
    assert values[1, 2] == pytest.approx(values[2, 1], rel=1e-6)
    assert values[1, 1] != pytest.approx(values[2, 2], rel=1e-6)
    mean = (values[1, 1] + values[2, 2]) / 2
    assert values[1, 2] == pytest.approx(mean, rel=1e-6)


def test_terms_add_up_with_their_weights(
    model: Mask2FormerForUniversalSegmentation, loss: DenseMask2FormerLoss
) -> None:
    labels = some_labels()
    terms = loss(model, pixels(), labels, [1, 2, 3], loss.count(labels))
    total = 0.7 * terms["set"] + 2.0 * terms["pixel"] + 0.5 * terms["auxiliary"]
    torch.testing.assert_close(terms["total"], total)


def test_pixel_term_is_the_likelihood_of_what_inference_uses(
    model: Mask2FormerForUniversalSegmentation, loss: DenseMask2FormerLoss
) -> None:
    labels = some_labels()
    labels[:, :32] = IGNORE
    terms = loss(model, pixels(), labels, [1, 2, 3], loss.count(labels))
    output = model(pixel_values=pixels())
    logits = query_logits(output.class_queries_logits, output.masks_queries_logits)
    resized = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    expected = torch.nn.functional.cross_entropy(resized, labels, ignore_index=IGNORE)
    torch.testing.assert_close(terms["pixel"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unlabelled", [1, 3])
def test_images_without_labels_are_harmless(
    loss: DenseMask2FormerLoss, unlabelled: int
) -> None:
    labels = torch.randint(0, 4, (3, 64, 64))
    labels[:unlabelled] = IGNORE
    model = tiny_models.segmenter().train()
    loss(model, pixels(), labels, [1, 2, 3], loss.count(labels))["total"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert loss.classifier.weight.grad is not None
    assert bool(loss.classifier.weight.grad.any()) == (unlabelled < 3)


def test_losses_are_float32_under_autocast(
    model: Mask2FormerForUniversalSegmentation, loss: DenseMask2FormerLoss
) -> None:
    labels = some_labels()
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(model, pixels(), labels, [1, 2, 3], loss.count(labels))
    plain = loss(model, pixels(), labels, [1, 2, 3], loss.count(labels))
    for name, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, plain[name], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("weights", [{"set_weight": -1.0}, {"set_weight": 0.0}])
def test_weights_that_teach_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="loss weights"):
        LossConfig(pixel_weight=0.0, **weights)
