"""Masked attention stays in its region; contributions add up to the class score."""

from __future__ import annotations

import pytest
import torch
from tiny_models import segmenter
from torch import nn

from geoseg.errors import ExplainError
from geoseg.explain.masks import capture_masks, rank_queries
from geoseg.models import class_logits


def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(1, 3, 96, 64, generator=generator)


def test_attention_is_exactly_zero_outside_the_region() -> None:
    masks = capture_masks(segmenter(decoder_layers=5), image())
    assert [layer.shape for layer in masks.layers] == [(3, 2), (6, 4), (12, 8), (3, 2)]
    hidden = 0
    for layer in masks.layers:
        for head in layer.attention:
            assert (head[~layer.region] == 0).all()
            hidden += int((~layer.region).sum())
        total = layer.attention.flatten(2).sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total))
    assert hidden > 0


def test_the_region_is_where_the_mask_before_is_above_one_half() -> None:
    masks = capture_masks(segmenter(), image())
    before, layer = masks.before, masks.layers[0]
    small = nn.functional.interpolate(
        before.masks[None], size=layer.shape, mode="bilinear", align_corners=False
    )[0]
    expected = small.sigmoid() >= 0.5
    assert torch.equal(layer.empty, ~expected.flatten(1).any(1))
    expected[layer.empty] = True
    assert torch.equal(layer.region, expected)


def test_an_empty_mask_may_look_everywhere() -> None:
    model = segmenter()
    predictor = model.model.transformer_module.decoder.mask_predictor
    last = [m for m in predictor.modules() if isinstance(m, nn.Linear)][-1]
    # Features times nothing: logits 0 are above, so make them below one half.
    pixels = model.model.pixel_level_module.decoder.mask_projection
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-1)
        pixels.weight.zero_()
        pixels.bias.fill_(1)
    layer = capture_masks(model, image()).layers[0]
    assert layer.empty.all()
    assert layer.region.all()


def test_contributions_sum_to_the_class_score() -> None:
    model = segmenter()
    masks = capture_masks(model, image())
    with torch.inference_mode():
        logits = class_logits(model(pixel_values=image()))[0]
    torch.testing.assert_close(masks.class_logits(), logits, rtol=0, atol=1e-5)
    scores = torch.stack([masks.contributions(k).sum(0) for k in range(len(logits))])
    expected = logits.exp()
    torch.testing.assert_close(scores / scores.sum(0), expected, rtol=0, atol=1e-5)


def test_queries_are_ranked_by_what_they_add() -> None:
    contributions = torch.tensor([[[0.1, 0.9]], [[0.3, 0.3]], [[0.0, 0.4]]])
    ranks = rank_queries(contributions)
    assert [rank.query for rank in ranks] == [0, 1, 2]
    assert sum(rank.share for rank in ranks) == pytest.approx(1)
    left = rank_queries(contributions, torch.tensor([[True, False]]))
    assert [rank.query for rank in left] == [1, 0, 2]
    assert left[0].amount == pytest.approx(0.3)


def test_what_does_not_exist_is_told_with_what_does() -> None:
    masks = capture_masks(segmenter(), image())
    with pytest.raises(ExplainError, match=r"no class 4; valid is 0 to 3"):
        masks.contributions(4)
    with pytest.raises(ExplainError, match=r"Linear has no masked attention"):
        capture_masks(nn.Linear(1, 1), image())
