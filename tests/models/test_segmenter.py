"""Mask2Former with geoseg's op, and class logits from queries (contract C2)."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as HFAttention,
)
from transformers.utils import logging as hf_logging

from geoseg.errors import ModelError
from geoseg.models import build_mask2former, class_logits, query_logits
from geoseg.models.segmenter import PixelDecoderAttention
from geoseg.ops import LIBRARY, regular_reference_points


def attentions(model: Mask2FormerForUniversalSegmentation) -> list[HFAttention]:
    layers: Any = model.model.pixel_level_module.decoder.encoder.layers
    return [layer.self_attn for layer in layers]


# The op in the pixel decoder


def test_pixel_decoder_attention_equals_hugging_faces() -> None:
    theirs = HFAttention(embed_dim=32, num_heads=4, n_levels=3, n_points=4)
    tiny_models.randomized(theirs, seed=0)
    ours = PixelDecoderAttention.adopt(theirs)
    shapes = [(6, 5), (3, 3), (2, 1)]
    size = sum(height * width for height, width in shapes)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 0.5

    centres = regular_reference_points(shapes, torch.device("cpu"))
    arguments = {
        "hidden_states": draw(2, size, 32),
        "attention_mask": torch.zeros(2, size, dtype=torch.bool),
        "encoder_hidden_states": draw(2, size, 32),
        "position_embeddings": draw(2, size, 32),
        "reference_points": centres[None, :, None].expand(2, -1, 3, -1),
        "spatial_shapes_list": shapes,
        "output_attentions": True,
    }
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            found, wanted = ours(**arguments), theirs(**arguments)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert ours(**{**arguments, "output_attentions": False})[1] is None


class Recorder(TorchDispatchMode):
    """Takes down which of our operators run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if func.namespace == "geoseg":
            self.seen.append(func._schema.name.removeprefix("geoseg::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not LIBRARY.loaded, reason="native operators are absent")
def test_all_attention_is_fused_when_gradients_are_off() -> None:
    model = tiny_models.segmenter()
    pixels = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    outputs = []
    for context, name in (
        (torch.no_grad(), "ms_deform_attn_fused"),
        (torch.enable_grad(), "ms_deform_attn"),
    ):
        with context, Recorder() as recorder:
            outputs.append(model(pixel_values=pixels))
        # The pixel decoder's one layer; four blocks, of which the last extracts thrice.
        assert len(recorder.seen) >= 1 + 4 + 2
        assert set(recorder.seen) == {name}
    for name in ("class_queries_logits", "masks_queries_logits"):
        found, wanted = (output[name].detach() for output in outputs)
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * scale)


def test_hugging_faces_pixel_decoder_pads_nothing() -> None:
    # What lets our attention pass over masks and reference points.
    model = Mask2FormerForUniversalSegmentation(tiny_models.segmenter().config)
    seen: list[dict[str, Any]] = []
    [attention] = attentions(model)
    attention.register_forward_pre_hook(
        lambda _module, _arguments, keywords: seen.append(keywords), with_kwargs=True
    )
    model(pixel_values=torch.randn(2, 3, 64, 80))
    [keywords] = seen
    assert not keywords["attention_mask"].any()
    centres = regular_reference_points(
        keywords["spatial_shapes_list"], torch.device("cpu")
    )
    for level in keywords["reference_points"].unbind(2):
        torch.testing.assert_close(level, centres.expand(2, -1, -1))


def test_swapping_changes_no_name_no_weight_and_no_result() -> None:
    model = tiny_models.segmenter()
    theirs = Mask2FormerForUniversalSegmentation(model.config)
    theirs.load_state_dict(model.state_dict())
    theirs.train(False)
    assert all(type(module) is PixelDecoderAttention for module in attentions(model))
    pixels = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = model(pixel_values=pixels), theirs(pixel_values=pixels)
    for name in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_models_that_geoseg_did_not_make_keep_their_own_attention() -> None:
    keys = tiny_models.preset()
    model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**keys))
    assert [type(module) for module in attentions(model)] == [HFAttention]


def test_decoder_layers_counts_one_more_than_is_built() -> None:
    model = build_mask2former(tiny_models.preset(decoder_layers=4))
    assert len(model.model.transformer_module.decoder.layers) == 3


def test_gradients_reach_every_weight_that_is_trained() -> None:
    model = tiny_models.segmenter().train()
    output = model(
        pixel_values=torch.randn(2, 3, 64, 64),
        mask_labels=[torch.ones(1, 64, 64)] * 2,
        class_labels=[torch.zeros(1, dtype=torch.int64)] * 2,
    )
    output.loss.backward()
    without = {
        n for n, p in model.named_parameters() if p.requires_grad and p.grad is None
    }
    assert not without


def test_nothing_is_said_while_a_model_is_built(
    capfd: pytest.CaptureFixture[str],
) -> None:
    hf_logging.warning_once.cache_clear()  # what was said once is not said again
    build_mask2former(tiny_models.preset(num_attention_heads=4, feature_size=96))
    assert capfd.readouterr() == ("", "")


# Query logits


def test_query_logits_are_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(2, 5, 4, generator=generator)  # 3 classes and "nothing"
    masks = torch.randn(2, 5, 6, 7, generator=generator)
    found = query_logits(classes, masks)
    assert found.dtype == torch.float32
    assert found.shape == (2, 3, 6, 7)
    for b, row, col in [(0, 0, 0), (1, 5, 6), (1, 2, 3)]:
        scores = []
        for k in range(3):
            score = 0.0
            for q in range(5):
                exponents = [math.exp(v) for v in classes[b, q].tolist()]
                mask = 1 / (1 + math.exp(-masks[b, q, row, col].item()))
                score += exponents[k] / sum(exponents) * mask
            scores.append(max(score, 1e-8))
        expected = [math.log(score / sum(scores)) for score in scores]
        assert found[b, :, row, col].tolist() == pytest.approx(expected, abs=1e-5)


def test_query_logits_have_a_floor() -> None:
    # One query, sure of class 0, everywhere: the others keep 1e-8.
    classes = torch.tensor([[[200.0, 0.0, 0.0, 0.0]]])
    masks = torch.full((1, 1, 1, 2), 200.0)
    masks[..., 1] = -200.0  # and a pixel that no query answers for
    found = query_logits(classes, masks)
    sure = torch.tensor([0.0, math.log(1e-8), math.log(1e-8)])
    torch.testing.assert_close(found[0, :, 0, 0], sure)
    torch.testing.assert_close(found[0, :, 0, 1], torch.full((3,), -math.log(3.0)))


@given(
    scale=st.sampled_from([0.0, 1.0, 1e3, 6e4]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_query_logits_are_normalised_and_finite(
    scale: float, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = (torch.rand(1, 3, 5, generator=generator) * 2 - 1) * scale
    masks = (torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1) * scale
    found = query_logits(classes.to(dtype), masks.to(dtype))
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_query_logits_are_computed_in_float32_under_autocast(
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(1, 5, 4, generator=generator).to(dtype)
    masks = torch.randn(1, 5, 6, 7, generator=generator).to(dtype)
    expected = query_logits(classes.float(), masks.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = query_logits(classes, masks)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_outputs_without_pixel_logits_are_refused() -> None:
    detection = SimpleNamespace(logits=torch.zeros(1, 100, 5))
    with pytest.raises(ModelError, match=r"no per-pixel class logits; use a semantic"):
        class_logits(detection)


def test_semantic_logits_become_float32() -> None:
    logits = torch.ones(1, 2, 3, 3, dtype=torch.float16)
    assert class_logits(SimpleNamespace(logits=logits)).dtype == torch.float32
