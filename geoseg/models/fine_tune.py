"""A model that starts from the weights of another one, perhaps of other classes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.errors import GeosegWarning, ModelError
from geoseg.io.resolution import TOLERATED_RATIO
from geoseg.models.registry import find_model, load_model, read_spec
from geoseg.models.warm_start import MEANING, WarmStart, compare, log_start
from geoseg.types import ModelSpec

logger = logging.getLogger(__name__)

_CLASS_HEAD = "class_predictor."
"""The only parameters whose rows mean classes."""

_LOSS = "criterion."
"""Numbers of the loss, which are settings and no weights."""

_ALIKE = (*MEANING, "hidden_dim", "feature_size", "mask_feature_size")
"""What must be the same in both heads; queries and layers may be more or fewer."""

_FREE = frozenset(
    {"freeze_backbone", "dtype", "transformers_version", "architectures"}
    | {"_name_or_path", "id2label", "label2id", "problem_type", "initializer_range"}
    | {"attention_dropout", "hidden_dropout_prob", "drop_path_rate", "layerdrop"}
    | {"output_attentions", "output_hidden_states", "return_dict"}
    | {"pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale", "layerscale_value"}
)
"""Keys of a backbone that change how it is trained and told, not what it computes."""


_SAME_INPUT = 0.005
"""Difference of means or deviations that is none: about a step of 8 bits."""


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
        ModelError: There is no such model, or it is of another kind or architecture.

    Warns:
        GeosegWarning: The other model knows none of the classes.
    """
    folder = find_model(name)
    source = load_model(folder)
    if not isinstance(source, Mask2FormerForUniversalSegmentation):
        raise ModelError(
            f"{name} is a {type(source).__name__}; start_from needs a model that "
            "geoseg train has made, or another Mask2Former"
        )
    differences = list(_differences(model.config, source.config))
    if differences:
        raise ModelError(
            f"start_from: {name} is of another architecture ("
            f"{', '.join(differences[:4])}); take the preset that it was made with"
        )
    ours, theirs = model.state_dict(), source.state_dict()
    head = [key for key in ours if key.startswith(_CLASS_HEAD)]
    body = {
        key: value
        for key, value in ours.items()
        if not key.startswith((_CLASS_HEAD, _LOSS))
    }
    result = compare(body, theirs)
    for key in result.taken:
        ours[key].copy_(theirs[key])
    log_start(result, name, "the model")
    known = [info.name for info in read_spec(folder).classes]
    rows = [(i, known.index(one)) for i, one in enumerate(classes) if one in known]
    _tell_classes([classes[i] for i, _ in rows], known, name)
    # The last row is "no object".
    to, source_rows = zip(*rows, (len(classes), len(known)), strict=True)
    for key in head:
        ours[key][torch.tensor(to)] = theirs[key][torch.tensor(source_rows)]
    return result


def warn_of_other_input(name: str, spec: ModelSpec) -> None:
    """Warn where a model gets other pixels than the one that its weights come from.

    Args:
        name: The other model, as in `start_from`.
        spec: What the model declares.

    Warns:
        GeosegWarning: Means, deviations or resolution differ.
    """
    theirs = read_spec(find_model(name))
    differing = [
        f"data.{key} is {_shown(ours)}, not {_shown(other)}"
        for key, ours, other in (
            ("mean", spec.mean, theirs.mean),
            ("std", spec.std, theirs.std),
        )
        if not np.allclose(ours, other, rtol=0, atol=_SAME_INPUT)
    ]
    if spec.resolution is not None and theirs.resolution is not None:
        ratio = spec.resolution / theirs.resolution
        if max(ratio, 1 / ratio) > TOLERATED_RATIO:
            differing.append(
                f"data.resolution is {spec.resolution:g} m, not {theirs.resolution:g}"
            )
    if differing:
        warnings.warn(
            f"start_from: {name} knows other pixels ({'; '.join(differing)}), so its "
            "weights help less; set what is not given by your data to its values",
            GeosegWarning,
            stacklevel=2,
        )


def _shown(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.3f}' for value in values)}]"


def _tell_classes(shared: list[str], known: list[str], name: str) -> None:
    if shared:
        logger.info("classes that %s knows: %s", name, ", ".join(shared))
    else:
        warnings.warn(
            f"start_from: {name} knows none of the classes (it has "
            f"{', '.join(known)}), so the class head starts at random; give them the "
            "same names if they are the same",
            GeosegWarning,
            stacklevel=3,
        )


def _differences(ours: Any, theirs: Any) -> Iterator[str]:  # noqa: ANN401
    """Name the keys that make equal shapes mean something else."""
    for key in _ALIKE:
        yield from _compared(f"model.{key}", getattr(ours, key), getattr(theirs, key))
    yield from _compared(
        "model.backbone_config",
        ours.backbone_config.to_dict(),
        theirs.backbone_config.to_dict(),
    )


def _compared(place: str, one: object, other: object) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted((one.keys() | other.keys()) - _FREE, key=str):
            yield from _compared(f"{place}.{key}", one.get(key), other.get(key))
    elif one != other:
        yield f"{place} {other} -> {one}"
