"""Deformable attention: which points a query samples, and with what weight.

Zhu et al., "Deformable DETR", ICLR 2021, equation 3. Two parts of the model have it:
the adapter, whose queries are cells of the spatial prior and look at the ViT's patches,
and Mask2Former's pixel decoder, whose queries look at three levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geoseg.errors import ExplainError
from geoseg.explain.attention import check_index
from geoseg.explain.capture import Call, Recording, record, whole_call
from geoseg.models.adapter import InteractionBlock, MSDeformAttn
from geoseg.models.segmenter import PixelDecoderAttention
from geoseg.ops.ms_deform_attn import regular_reference_points

Shapes = tuple[tuple[int, int], ...]
"""(height, width) of levels."""

_LAYERS = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
"""The linear layers of a deformable attention; what they give is what is recorded."""


@dataclass(frozen=True)
class Sampling:
    """One deformable attention of one image, as it ran."""

    name: str
    """Where it is in the model: "interaction 0, extractor", "pixel decoder layer 2"."""
    query_shapes: Shapes
    """Levels whose cells, level after level and rows first, are the queries."""
    shapes: Shapes
    """Levels that are sampled."""
    locations: Tensor
    """(x, y) of each point in 0..1 of the image, shape (Q, M, L, P, 2), float32. Points
    outside count as zero."""
    weights: Tensor
    """Weight of each point, shape (Q, M, L, P), float32; they sum to 1 over L and P."""
    value: Tensor
    """What is sampled, shape (S, M, D), float32."""
    channels: int
    """Channels of queries and of what the module gives, C."""
    attended: Tensor
    """What the module made of it, before its last layer: shape (Q, M * D), float32."""

    def query(self, level: int, row: float, col: float) -> int:
        """Return the query whose cell holds a place.

        Args:
            level: Level of the query, zero-based.
            row: Place in the image, 0..1 from the top.
            col: Place in the image, 0..1 from the left.

        Raises:
            ExplainError: There is no such level.
        """
        check_index("level", level, len(self.query_shapes))
        before = sum(height * width for height, width in self.query_shapes[:level])
        height, width = self.query_shapes[level]
        cell_row = min(int(row * height), height - 1)
        cell_col = min(int(col * width), width - 1)
        return before + cell_row * width + cell_col

    def centre(self, query: int) -> tuple[float, float]:
        """Return where a query looks from, (x, y) in 0..1 of the image."""
        points = regular_reference_points(self.query_shapes, torch.device("cpu"))
        x, y = points[query].tolist()
        return x, y


def attend(sampling: Sampling, query: int) -> Tensor:
    """Work a query's answer out again, from its points and weights alone.

    Every point is interpolated between the four cells around it, which are zero outside
    the level; written from the formula, to check what is shown by.

    Returns:
        Shape (M * D,), float32: `sampling.attended[query]`.
    """
    starts = [0]
    for height, width in sampling.shapes:
        starts.append(starts[-1] + height * width)
    heads = sampling.value.shape[1]
    answer = torch.zeros(heads, sampling.value.shape[2])
    for level, (height, width) in enumerate(sampling.shapes):
        cells = sampling.value[starts[level] : starts[level + 1]]
        cells = cells.view(height, width, heads, -1)
        place = sampling.locations[query, :, level] * torch.tensor([width, height])
        x, y = (place - 0.5).unbind(-1)  # (M, P), cells from the first one's centre
        for row, row_share in _neighbours(y):
            for col, col_share in _neighbours(x):
                inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
                share = sampling.weights[query, :, level] * row_share * col_share
                share = torch.where(inside, share, 0.0)
                found = cells[
                    row.clamp(0, height - 1),
                    col.clamp(0, width - 1),
                    torch.arange(heads)[:, None],
                ]
                answer += (share[..., None] * found).sum(dim=1)
    return answer.flatten()


def _neighbours(position: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the cells before and after positions, and the share of each."""
    low = position.floor()
    share = position - low
    return [(low.long(), 1 - share), (low.long() + 1, share)]


@torch.inference_mode()
def capture_sampling(model: nn.Module, images: Tensor) -> list[Sampling]:
    """Run a model and return all its deformable attentions, in the order of the run.

    Args:
        model: A model with a ViT-Adapter, a Mask2Former of geoseg, or both; eval mode.
        images: One normalised image, shape (1, 3, H, W).

    Raises:
        ExplainError: It has no deformable attention of geoseg.
    """
    attentions = _deformable(model)
    if not attentions:
        raise ExplainError(
            f"a {type(model).__name__} has no deformable attention that geoseg knows; "
            "explain a model with a ViT-Adapter or a Mask2Former"
        )
    parts = {
        f"{name}/{layer}": getattr(module, layer)
        for name, module in attentions.items()
        for layer in _LAYERS
    }
    with record({**attentions, **parts}, whole_call) as recording:
        model(images)
    return [
        _sampling(name, module, recording)
        for name, module in attentions.items()
        if recording.calls(name)
    ]


def pick(samplings: Sequence[Sampling], name: str) -> Sampling:
    """Return the sampling of a name.

    Raises:
        ExplainError: There is none; lists those that there are.
    """
    for sampling in samplings:
        if sampling.name == name:
            return sampling
    known = "; ".join(repr(sampling.name) for sampling in samplings)
    raise ExplainError(
        f"the model has no deformable attention {name!r}; it has {known}"
    )


def _deformable(model: nn.Module) -> dict[str, nn.Module]:
    """Return deformable attentions by what users call them."""
    found: dict[str, nn.Module] = {}
    blocks = [m for m in model.modules() if isinstance(m, InteractionBlock)]
    for number, block in enumerate(blocks):
        for path, module in block.named_modules():
            if isinstance(module, MSDeformAttn):
                found[f"interaction {number}, {_part(path)}"] = module
    decoder = [m for m in model.modules() if isinstance(m, PixelDecoderAttention)]
    for number, attention in enumerate(decoder):
        found[f"pixel decoder layer {number}"] = attention
    return found


def _part(path: str) -> str:
    """Turn "extra_extractors.0.attn" into "extra extractor 0"."""
    words = path.removesuffix(".attn").replace("extra_extractors", "extra extractor")
    return words.replace(".", " ")


def _sampling(name: str, module: nn.Module, recording: Recording[Call]) -> Sampling:
    call = recording.only(name)
    outputs = {layer: recording.only(f"{name}/{layer}") for layer in _LAYERS}
    if isinstance(module, MSDeformAttn):
        shapes, queries = call.arguments["shapes"], call.arguments["query_shapes"]
        sizes = (module.num_heads, module.num_levels, module.num_points)
    else:
        assert isinstance(module, PixelDecoderAttention)
        shapes = queries = call.arguments["spatial_shapes_list"]
        sizes = (module.n_heads, module.n_levels, module.n_points)
    levels, cells = _pairs(shapes), _pairs(queries)
    offsets = _only_image(outputs["sampling_offsets"].output).unflatten(1, (*sizes, 2))
    logits = _only_image(outputs["attention_weights"].output).unflatten(1, sizes)
    value = _only_image(outputs["value_proj"].output)
    (attended,) = outputs["output_proj"].arguments.values()
    # Offsets are in cells of the level that is sampled.
    widths = torch.tensor([(width, height) for height, width in levels])
    centres = regular_reference_points(cells, torch.device("cpu"))
    return Sampling(
        name=name,
        query_shapes=cells,
        shapes=levels,
        locations=centres[:, None, None, None] + offsets / widths[:, None],
        weights=logits.flatten(2).softmax(-1).view(logits.shape),
        value=value.unflatten(1, (sizes[0], -1)),
        channels=int(outputs["output_proj"].output.shape[2]),
        attended=_only_image(attended),
    )


def _pairs(shapes: Sequence[Sequence[int]]) -> Shapes:
    return tuple((int(height), int(width)) for height, width in shapes)


def _only_image(tensor: Tensor) -> Tensor:
    """Return the only image of a batch, in float32 on the CPU."""
    assert len(tensor) == 1, "one image at a time"
    return tensor[0].detach().to("cpu", torch.float32)
