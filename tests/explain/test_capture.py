"""Hooks record what modules do, change nothing, and never stay."""

from __future__ import annotations

import pytest
import torch
from tiny_models import segmenter
from torch import nn

from geoseg.explain.attention import all_weights, capture_attention
from geoseg.explain.capture import Call, record, whole_call, with_arguments
from geoseg.explain.masks import capture_masks
from geoseg.explain.sampling import capture_sampling
from geoseg.models import class_logits


def hooks(model: nn.Module) -> int:
    """Return how many forward hooks a model has."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.modules()
    )


def test_calls_are_kept_by_the_names_of_arguments() -> None:
    layer = nn.Linear(3, 2)
    with record({"layer": layer}, whole_call) as recording:
        output = layer(torch.ones(1, 3))
        layer(input=torch.zeros(1, 3))
    first, second = recording.calls("layer")
    assert torch.equal(first.arguments["input"], torch.ones(1, 3))
    assert torch.equal(second.arguments["input"], torch.zeros(1, 3))
    assert torch.equal(first.output, output)


def test_no_hook_stays_when_the_model_fails() -> None:
    layer = nn.Linear(3, 2)
    with (
        pytest.raises(RuntimeError),
        with_arguments([layer]),
        record({"layer": layer}, whole_call),
    ):
        layer(torch.ones(1, 4))
    assert hooks(layer) == 0


def test_no_hook_stays_when_keeping_fails() -> None:
    layer = nn.Linear(3, 2)

    def refuse(_: str, __: Call) -> None:
        raise KeyError("no")

    with pytest.raises(KeyError), record({"layer": layer}, refuse):
        layer(torch.ones(1, 3))
    assert hooks(layer) == 0


def test_a_model_answers_the_same_while_it_is_recorded() -> None:
    model = segmenter()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    handle = model.register_forward_hook(
        lambda _, __, output: seen.append(class_logits(output))
    )
    with torch.inference_mode():
        model(pixel_values=images)
    before = hooks(model)  # transformers adds some of its own.
    for capture in (capture_masks, capture_sampling):
        capture(model, images)
    capture_attention(model, images, all_weights)
    assert hooks(model) == before
    handle.remove()
    assert len(seen) == 4
    for recorded in seen[1:]:
        torch.testing.assert_close(recorded, seen[0], rtol=0, atol=1e-5)
