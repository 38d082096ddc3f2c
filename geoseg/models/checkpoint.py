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

from typing import Any

from transformers import PreTrainedModel

from geoseg.errors import ModelError
from geoseg.models.export import written_config
from geoseg.models.presets import DECLARATION

WEIGHTS, AVERAGE = "model.", "average."
"""Prefixes of the weights in `state_dict`; the average is preferred."""


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
