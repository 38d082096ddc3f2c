"""Losses of a Mask2Former that is trained on dense labels."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from torch import Tensor

from geoseg.data.labelled import IGNORE
from geoseg.models import query_logits
from geoseg.training.losses import DenseMask2FormerLoss, mask_targets


def loss() -> DenseMask2FormerLoss:
    torch.manual_seed(0)
    return DenseMask2FormerLoss(32, 4, pixel_weight=2.0, auxiliary_weight=0.5)


def pixels(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_targets_are_one_mask_for_each_class_present() -> None:
    labels = torch.tensor([[[0, 2], [2, IGNORE]], [[IGNORE, IGNORE]] * 2])
    masks, classes = mask_targets(labels)
    assert [c.tolist() for c in classes] == [[0, 2], []]
    assert masks[0].tolist() == [[[1, 0], [0, 0]], [[0, 1], [1, 0]]]
    assert masks[1].shape == (0, 2, 2)
    assert masks[0].dtype == torch.float32


def test_terms_add_up_with_their_weights() -> None:
    labels = torch.randint(0, 4, (2, 64, 64))
    torch.manual_seed(0)
    terms = loss()(tiny_models.segmenter().train(), pixels(), labels)
    total = terms["set"] + 2.0 * terms["pixel"] + 0.5 * terms["auxiliary"]
    torch.testing.assert_close(terms["total"], total)


def test_the_set_loss_counts_once_however_many_layers() -> None:
    labels = torch.randint(0, 4, (2, 64, 64))
    model = tiny_models.segmenter().eval()
    masks, classes = mask_targets(labels)
    torch.manual_seed(0)
    terms = loss()(model, pixels(), labels)
    torch.manual_seed(0)
    loss()  # draws what the module above drew
    output = model(pixel_values=pixels(), mask_labels=masks, class_labels=classes)
    layers = model.config.decoder_layers
    assert layers > 1
    torch.testing.assert_close(terms["set"], output.loss.squeeze() / layers)


def test_pixel_term_is_the_likelihood_of_what_inference_uses() -> None:
    labels = torch.randint(0, 4, (2, 64, 64))
    labels[:, :32] = IGNORE
    model = tiny_models.segmenter()
    terms = loss()(model, pixels(), labels)
    output = model(pixel_values=pixels())
    logits = query_logits(output.class_queries_logits, output.masks_queries_logits)
    resized = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    expected = torch.nn.functional.cross_entropy(resized, labels, ignore_index=IGNORE)
    torch.testing.assert_close(terms["pixel"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unlabelled", [1, 2])
def test_images_without_labels_are_harmless(unlabelled: int) -> None:
    labels = torch.randint(0, 4, (2, 64, 64))
    labels[:unlabelled] = IGNORE
    model = tiny_models.segmenter().train()
    terms = loss()(model, pixels(), labels)
    terms["total"].backward()
    assert bool(torch.isfinite(terms["total"]))
    for parameter in model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_gradients_reach_the_auxiliary_classifier() -> None:
    module = loss()
    labels = torch.randint(0, 4, (2, 64, 64))
    module(tiny_models.segmenter().train(), pixels(), labels)["total"].backward()
    gradient = module.classifier.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0
