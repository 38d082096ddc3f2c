"""Lightning checkpoints that are models too: what `geoseg train` leaves on its way.

A `.ckpt` is accepted wherever a model folder is. It holds, beside all that the trainer
needs to go on:

- `state_dict`: the model's weights as `model.<name>`, all of them, and, where there is
  a moving average, the same names as `average.<name>`, which then are the model. Other
  prefixes (a loss with weights of its own) are passed over.
- `geoseg`: what `checkpoint_payload` returns, plain JSON values. `config` is what a
  folder has as `config.json` without its declaration, `declaration` is what a preset
  has under `geoseg`: tile size, resolution, bands, scale, mean, std and class table.

Files are read with `weights_only=True`: pickled code is never run (contract C12).
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from geoseg.errors import ModelError
from geoseg.models.export import written_config
from geoseg.models.presets import DECLARATION

WEIGHTS, AVERAGE = "model.", "average."
"""Prefixes of the weights in `state_dict`; the average is preferred."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The model in a checkpoint."""

    config: dict[str, Any]
    """Content of a folder's `config.json`, the declaration apart."""
    declaration: dict[str, Any]
    """What a folder declares under `geoseg`, and mean and std."""
    weights: dict[str, Tensor]
    """Weights by name, mapped from the file: they are read when they are used."""


def checkpoint_payload(model: PreTrainedModel) -> dict[str, Any]:
    """Describe a model for its checkpoints: goes under the key `geoseg` of each.

    Args:
        model: A segmentation model that `geoseg.models.export.declare` was called on.

    Raises:
        ModelError: It declares nothing.
    """
    config = written_config(model)
    declaration = config.pop(DECLARATION, None)
    if not declaration:
        raise ModelError(
            "this model declares neither classes nor bands; call declare on it first"
        )
    return {"config": config, "declaration": declaration}


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of geoseg's training; of the tensors, only where they are.

    Raises:
        ModelError: It is damaged, holds pickled code, or is another program's.
    """
    content = _load(path)
    payload = content.get(DECLARATION) if isinstance(content, dict) else None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(payload, dict) or not isinstance(state, dict):
        raise ModelError(
            f"{path} is no checkpoint of geoseg's: it lacks the key '{DECLARATION}'; "
            "export the model as a Hugging Face folder and name that"
        )
    config, declaration = payload.get("config"), payload.get("declaration")
    if not isinstance(config, dict) or not isinstance(declaration, dict):
        raise ModelError(
            f"{path} does not describe its model as this version of geoseg does; name "
            "a model folder"
        )
    weights = _weights(state, AVERAGE) or _weights(state, WEIGHTS)
    if not weights:
        raise ModelError(f"{path} holds no weights of a model; name another checkpoint")
    return Checkpoint(config, declaration, weights)


def _load(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {named[1]}" if named else "it is not made of tensors"
        raise ModelError(
            f"{path} is not read: {reason}, and pickled code is never run; save "
            "tensors and plain values only"
        ) from error
    except Exception as error:  # a damaged file breaks it in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} is no checkpoint of torch's: {reason}") from error


def _weights(state: dict[Any, Any], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(prefix)
        if isinstance(value, Tensor)
    }
