"""What attention costs: of each query to all cells, or to a few points.

Multiplications with addition (MACs) and the bytes of attention weights, by formula from
the shapes that ran. With Q queries and S cells of C channels, values of V channels in M
heads, L levels and P points:

    full        2 Q C V + 2 S C V + 2 Q S V        projections of queries, output, keys,
                                                   values; scores and weighted sums
    deformable  3 Q C M L P + Q C V + S C V        offsets and weights, output, values;
                + 5 Q L P V                        four cells a point, and its weight
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.explain.sampling import Sampling

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One attention layer, full and deformable."""

    name: str
    """Where it is in the model."""
    queries: int
    """Number of queries, Q."""
    cells: int
    """Number of cells that can be looked at, S."""
    points: int
    """Points that a query looks at in each head, L * P."""
    full: int
    """MACs of full attention."""
    deformable: int
    """MACs of deformable attention."""
    full_bytes: int
    """Attention weights of full attention in float32, bytes."""
    deformable_bytes: int
    """Those of deformable attention, with the points' places, bytes."""

    @property
    def ratio(self) -> float:
        """How many times more full attention costs."""
        return self.full / self.deformable


def attention_cost(
    name: str,
    *,
    queries: int,
    cells: int,
    channels: int,
    value_channels: int,
    heads: int,
    levels: int,
    points: int,
) -> Cost:
    """Compute the cost of a layer, see the module.

    Args:
        name: Where the layer is.
        queries: Q.
        cells: S, of all levels.
        channels: C, of queries and cells.
        value_channels: V, of all heads together.
        heads: M.
        levels: L.
        points: P, of a head and level.
    """
    samples = heads * levels * points
    projected = queries * channels * value_channels + cells * channels * value_channels
    scored = 2 * queries * cells * value_channels
    gathered = 5 * queries * levels * points * value_channels
    return Cost(
        name=name,
        queries=queries,
        cells=cells,
        points=levels * points,
        full=2 * projected + scored,
        deformable=projected + 3 * queries * channels * samples + gathered,
        full_bytes=FLOAT * queries * cells * heads,
        deformable_bytes=3 * FLOAT * queries * samples,
    )


def cost_table(samplings: Sequence[Sampling]) -> list[Cost]:
    """Compute the cost of all layers of a model at the size that it ran at."""
    return [
        attention_cost(
            sampling.name,
            queries=len(sampling.locations),
            cells=len(sampling.value),
            channels=sampling.channels,
            value_channels=sampling.attended.shape[1],
            heads=sampling.value.shape[1],
            levels=len(sampling.shapes),
            points=sampling.weights.shape[3],
        )
        for sampling in samplings
    ]
