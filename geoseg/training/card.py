"""The card of a trained model: what it knows, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geoseg import __version__
from geoseg.data.pairs import listed
from geoseg.training.fit import Outcome
from geoseg.types import ModelSpec


def write_card(
    spec: ModelSpec,
    outcome: Outcome,
    *,
    training: Sequence[str],
    validation: Sequence[str],
    recipe: Mapping[str, object],
) -> str:
    """Write the README of a model folder.

    Args:
        spec: What the model declares.
        outcome: How its training ended.
        training: Names of the scenes trained on.
        validation: Names of the scenes that chose the step.
        recipe: What the run depended on, by dotted key.

    Returns:
        Markdown with the front matter that the hub reads.
    """
    classes = ", ".join(f"{entry.id} {entry.name}" for entry in spec.classes)
    resolution = "unknown" if spec.resolution is None else f"{spec.resolution:g} m"
    settings = "\n".join(f"| `{key}` | `{value}` |" for key, value in recipe.items())
    return f"""---
library_name: transformers
pipeline_tag: image-segmentation
tags: [semantic-segmentation, remote-sensing, mask2former, geoseg]
---

# {spec.name}

Trained by geoseg {__version__}. Use it with `geoseg segment SCENES... --model FOLDER`,
or with transformers after `import geoseg.models`.

| | |
|---|---|
| input | {", ".join(spec.bands)}; about {resolution} a pixel |
| tiles | {spec.tile_size} x {spec.tile_size} pixels |
| classes | {classes} |
| steps | {outcome.steps:,} |
| weights | {_chosen(outcome)} |
| trained on | {listed(training)} |
| validated on | {listed(validation) or "nothing"} |

{_caution(outcome)}

## Recipe

| key | value |
|---|---|
{settings}
"""


def _chosen(outcome: Outcome) -> str:
    if outcome.best_step is None:
        return "moving average after the last step"
    known = outcome.best_miou
    score = "" if known is None else f" ({known:.3f})"
    return (
        f"moving average after step {outcome.best_step:,}, the best by mIoU{score} on "
        "the validation scenes"
    )


def _caution(outcome: Outcome) -> str:
    if outcome.best_step is None:
        return "Nothing was measured in training: evaluate it before you rely on it."
    return (
        "Validation chose the step, so its score flatters: evaluate the model on "
        "scenes that had no part in that."
    )
