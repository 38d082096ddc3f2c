"""What is shown of deformable attention is all that decides its output."""

from __future__ import annotations

import pytest
import torch
from tiny_models import segmenter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geoseg.errors import ExplainError
from geoseg.explain.cost import attention_cost, cost_table
from geoseg.explain.sampling import attend, capture_sampling, pick

PARTS = [
    *(f"interaction {block}, extractor" for block in range(4)),
    "interaction 3, extra extractor 0",
    "interaction 3, extra extractor 1",
    "pixel decoder layer 0",
]


def image() -> torch.Tensor:
    """Return an image whose last level has no whole number of cells: 112 / 32 = 3.5."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, 3, 112, 80, generator=generator)


def test_points_and_weights_alone_give_the_output_again() -> None:
    samplings = capture_sampling(segmenter(), image())
    assert sorted(s.name for s in samplings) == sorted(PARTS)
    for sampling in samplings:
        queries = range(0, len(sampling.locations), 7)
        again = torch.stack([attend(sampling, query) for query in queries])
        expected = sampling.attended[::7]
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
        assert expected.abs().max() > 1e-2
        totals = sampling.weights.flatten(2).sum(-1)
        torch.testing.assert_close(totals, torch.ones_like(totals))


def test_the_last_layer_makes_of_it_what_the_module_gave() -> None:
    model = segmenter()
    layer = model.model.pixel_level_module.decoder.encoder.layers[0].self_attn
    given: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: given.append(output[0]))
    sampling = pick(capture_sampling(model, image()), "pixel decoder layer 0")
    handle.remove()
    with torch.inference_mode():
        again = layer.output_proj(attend(sampling, 5))
    torch.testing.assert_close(again, given[0][0, 5], rtol=0, atol=1e-5)


def test_a_query_is_the_cell_that_holds_a_place() -> None:
    samplings = capture_sampling(segmenter(), image())
    sampling = pick(samplings, "interaction 0, extractor")
    assert sampling.query_shapes == ((14, 10), (7, 5), (4, 3))
    assert sampling.shapes == ((7, 5),)
    assert sampling.query(0, 0, 0) == 0
    assert sampling.query(0, 0.999, 0.999) == 139
    query = sampling.query(2, 0.5, 0.9)
    assert query == 140 + 35 + 2 * 3 + 2
    assert sampling.centre(query) == pytest.approx((2.5 / 3, 2.5 / 4))
    with pytest.raises(ExplainError, match=r"no level 3; valid is 0 to 2"):
        sampling.query(3, 0, 0)


def test_an_unknown_part_is_told_with_those_there_are() -> None:
    samplings = capture_sampling(segmenter(), image())
    with pytest.raises(ExplainError, match=r"'interaction 0, extractor'; "):
        pick(samplings, "injector")
    with pytest.raises(ExplainError, match=r"Linear has no deformable attention"):
        capture_sampling(nn.Linear(1, 1), image())


def test_costs_are_those_of_what_ran() -> None:
    samplings = capture_sampling(segmenter(), image())
    cost = next(
        c for c in cost_table(samplings) if c.name == "interaction 0, extractor"
    )
    cells = 14 * 10 + 7 * 5 + 4 * 3
    assert (cost.queries, cost.cells, cost.points) == (cells, 35, 4)


def test_the_cost_of_full_attention_is_what_torch_counts() -> None:
    queries, cells, channels = 40, 90, 16
    attention = nn.MultiheadAttention(channels, 4, bias=False, batch_first=True)
    with FlopCounterMode(display=False) as counter:
        attention(
            torch.zeros(1, queries, channels), *[torch.zeros(1, cells, channels)] * 2
        )
    cost = attention_cost(
        "",
        queries=queries,
        cells=cells,
        channels=channels,
        value_channels=channels,
        heads=4,
        levels=3,
        points=4,
    )
    assert 2 * cost.full == counter.get_total_flops()


def test_the_cost_of_deformable_attention_by_hand() -> None:
    cost = attention_cost(
        "",
        queries=10,
        cells=20,
        channels=8,
        value_channels=4,
        heads=2,
        levels=1,
        points=3,
    )
    offsets, weights = 10 * 8 * (2 * 1 * 3 * 2), 10 * 8 * (2 * 1 * 3)
    value, output, points = 20 * 8 * 4, 10 * 4 * 8, 10 * 1 * 3 * 4 * 5
    assert cost.deformable == offsets + weights + value + output + points
    assert cost.full_bytes == 4 * 10 * 20 * 2
    assert cost.deformable_bytes == 4 * 3 * 10 * 6
