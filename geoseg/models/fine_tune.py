"""A model that starts from the weights of another one, perhaps of other classes."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.errors import ModelError
from geoseg.models.registry import find_model, load_model, read_spec
from geoseg.models.warm_start import LEAST_SHARE, WarmStart, compare, log_start

logger = logging.getLogger(__name__)

_CLASS_HEAD = "class_predictor."
"""The only parameters whose rows mean classes."""


def start_from(
    model: Mask2FormerForUniversalSegmentation, name: str, classes: list[str]
) -> WarmStart:
    """Take all weights of another model that fit by name and shape.

    Rows of the class head go by the names of classes, wherever they stand; those of
    other classes stay as they were made.

    Args:
        model: A freshly built model; changed in place.
        name: What `geoseg segment --model` takes: `builtin`, a folder, a checkpoint of
            a training, a hub id.
        classes: Names of the model's classes, in the order of its logits.

    Returns:
        What was taken and what was not; it is logged, too.

    Raises:
        ModelError: There is no such model, it is of another kind, or next to nothing of
            it fits.
    """
    folder = find_model(name)
    source = load_model(folder)
    if not isinstance(source, Mask2FormerForUniversalSegmentation):
        raise ModelError(
            f"{name} is a {type(source).__name__}; start_from needs a model that "
            "geoseg train has made, or another Mask2Former"
        )
    ours = model.state_dict()
    theirs = source.state_dict()
    body = {key: value for key, value in ours.items() if _is_body(key)}
    result = compare(body, theirs)
    if result.share < LEAST_SHARE or _heads(model) != _heads(source):
        raise ModelError(
            f"{name} is of another architecture ({result.share:.0%} of this model's "
            "weights fit); start from a model of the same preset"
        )
    for key in result.taken:
        ours[key].copy_(theirs[key])
    known = [info.name for info in read_spec(folder).classes]
    _copy_classes(ours, theirs, classes, known)
    log_start(result, name, "the model")
    shared = [one for one in classes if one in known]
    logger.info("classes that %s knows: %s", name, ", ".join(shared) or "none")
    return result


def _copy_classes(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], names: list[str], of: list[str]
) -> None:
    """Copy the class head's rows of the same names, and that of "no object"."""
    pairs = [(i, of.index(one)) for i, one in enumerate(names) if one in of]
    pairs.append((len(names), len(of)))
    to, source = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for key in (key for key in ours if not _is_body(key)):
        if ours[key].shape[1:] == theirs[key].shape[1:]:
            ours[key][to] = theirs[key][source]


def _is_body(key: str) -> bool:
    return not key.startswith(_CLASS_HEAD)


def _heads(model: Mask2FormerForUniversalSegmentation) -> tuple[object, ...]:
    """Return what shapes do not show: the same numbers mean something else."""
    config: Any = model.config
    vit = getattr(config.backbone_config, "backbone_config", config.backbone_config)
    return (
        config.num_attention_heads,
        getattr(config.backbone_config, "deform_num_heads", None),
        getattr(vit, "num_attention_heads", None),
    )
