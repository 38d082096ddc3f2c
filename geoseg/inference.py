"""The predictor: normalised batches of tiles in, class logits out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.models import class_logits, load_model
from geoseg.models.registry import import_modules, read_spec
from geoseg.types import Dtype, ModelSpec

logger = logging.getLogger(__name__)

FLOAT16_LIMIT = 60000.0
"""Logits are clipped to this before they become float16, whose largest is 65504."""

PLAIN: tuple[tuple[int, ...], ...] = ((),)
FLIPS = (*PLAIN, (3,), (2,), (2, 3))
"""Axes of (B, C, H, W) that each pass over a tile is flipped along."""

CUDA_BATCH, CPU_BATCH = 8, 1
"""Default batch sizes. On a CPU a tile already fills the caches."""


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """How a worker loads and runs the model; small, travels instead of the model."""

    folder: str
    """Model folder, as the workers see it."""
    sha256: str
    """Hash that the folder must have there."""
    tile_size: int
    """Side of the model input, pixels."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:1`."""
    dtype: Dtype = "auto"
    """Arithmetic of the model."""
    batch_size: int = CPU_BATCH
    """Tiles a forward pass; the last batch is padded to it."""
    torch_threads: int = 1
    """Threads of torch in a worker."""
    compile: bool = False
    """Compile the model with `torch.compile`."""
    tta: bool = False
    """Average the logits of each tile over its four flips."""
    imports: tuple[str, ...] = ()
    """Modules to import before loading: they register a user's own models."""


@dataclass(frozen=True, slots=True)
class TileInput:
    """One tile as it was read."""

    values: npt.NDArray[np.generic]
    """(bands, height, width) digital numbers; smaller than a tile in small scenes."""
    valid: npt.NDArray[np.bool_]
    """(height, width), False where there is no data."""


class Predictor:
    """One model on one device.

    Args:
        model: Any Hugging Face semantic or universal segmentation model.
        spec: What it declares.
        config: How to run it.
        device: Another device than `config.device`.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        config: PredictorConfig,
        device: str | None = None,
    ) -> None:
        self.spec, self.config = spec, config
        self.device = torch.device(device or config.device)
        self.dtype = _autocast_dtype(config.dtype, self.device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        if config.compile:
            # One shape only: every batch is padded to the same size.
            self.model.compile(dynamic=False)
        self.mean = torch.tensor(spec.mean, device=self.device).view(1, -1, 1, 1)
        self.std = torch.tensor(spec.std, device=self.device).view(1, -1, 1, 1)

    @classmethod
    def load(cls, config: PredictorConfig, device: str | None = None) -> Predictor:
        """Load the model that `config` names.

        Raises:
            ModelError: The folder is not there, or has other weights than expected.
        """
        torch.set_num_threads(config.torch_threads)
        import_modules(config.imports)
        folder = Path(config.folder)
        if not folder.is_dir():
            raise ModelError(
                f"{folder} is not on this worker; put the model on a path that every "
                "worker sees"
            )
        spec = read_spec(folder, tile_size=config.tile_size)
        if spec.weights_sha256 != config.sha256:
            raise ModelError(
                f"{folder} has other weights on this worker "
                f"({spec.weights_sha256[:12]}) than where the run was started "
                f"({config.sha256[:12]}); copy the same folder to all"
            )
        logger.info("loading %s on %s", folder, config.device)
        return cls(load_model(folder), spec, config, device)

    def predict(
        self, tiles: Iterable[TileInput], scale: float
    ) -> Iterator[npt.NDArray[np.float16]]:
        """Class logits of each tile, in order.

        Args:
            tiles: Tiles; those of scenes smaller than a tile are padded by reflection.
            scale: The digital number that means 1.0.

        Yields:
            (K, h, w) float16 at the model's own stride, padding included.
        """
        batch: list[Tensor] = []
        for tile in tiles:
            batch.append(self._prepare(tile, scale))
            if len(batch) == self.config.batch_size:
                yield from self._forward(batch)
                batch = []
        if batch:
            yield from self._forward(batch)

    def _prepare(self, tile: TileInput, scale: float) -> Tensor:
        """Scaled values, the mean where there is no data, padded to the tile's size."""
        mean = np.asarray(self.spec.mean, np.float32).reshape(-1, 1, 1)
        values = tile.values.astype(np.float32)
        # Dividing by what means 1.0, per dataset: never by what a tile happens to hold.
        values /= np.float32(scale)
        values = np.where(tile.valid[None], values, mean)
        height, width = values.shape[1:]
        size = self.config.tile_size
        if (height, width) != (size, size):
            margins = ((0, 0), (0, size - height), (0, size - width))
            values = np.pad(values, margins, mode="reflect")
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    @torch.inference_mode()
    def _forward(self, batch: list[Tensor]) -> Iterator[npt.NDArray[np.float16]]:
        count = len(batch)
        # A short batch is filled up: kernels may sum in another order at another size.
        batch = batch + [batch[-1]] * (self.config.batch_size - count)
        on_device = [tile.to(self.device, non_blocking=True) for tile in batch]
        images = (torch.stack(on_device) - self.mean) / self.std
        passes = FLIPS if self.config.tta else PLAIN
        logits = self._logits(images, passes[0])
        for axes in passes[1:]:
            logits = logits + self._logits(images, axes)
        logits = logits[:count] / len(passes)
        clipped = logits.clamp(-FLOAT16_LIMIT, FLOAT16_LIMIT)
        # Infinity must not pass for a large number: blending refuses NaN by name.
        logits = clipped.masked_fill(~logits.isfinite(), torch.nan).to(torch.float16)
        yield from logits.contiguous().cpu().numpy()

    def _logits(self, images: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Class logits (B, K, h, w) of images flipped along axes, flipped back."""
        flipped = images.flip(axes) if axes else images
        with torch.autocast(
            self.device.type,
            dtype=self.dtype,
            enabled=self.dtype != torch.float32,
        ):
            output = self.model(
                pixel_values=flipped.contiguous(memory_format=torch.channels_last)
            )
        logits = class_logits(output)
        return logits.float().flip(axes) if axes else logits


def choose_device(name: str) -> str:
    """Resolve `auto` to `cuda` where there is one, else `cpu`.

    Raises:
        ModelError: CUDA is asked for and not there, or the name is not a device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    cuda = re.fullmatch(r"cuda(?::([0-9]+))?", name)
    if cuda is None:
        raise ModelError(
            f"device '{name}' is not one; use auto, cpu or cuda, or cuda:1 for the "
            "second of several"
        )
    if not torch.cuda.is_available():
        raise ModelError(
            "device 'cuda' is asked for but torch sees no GPU; use --device cpu"
        )
    count = torch.cuda.device_count()
    if cuda[1] is not None and int(cuda[1]) >= count:
        raise ModelError(
            f"device '{name}' is not there; the last GPU that torch sees is "
            f"cuda:{count - 1}"
        )
    return name


def default_batch_size(device: str) -> int:
    """Tiles a forward pass when none is asked for."""
    return CUDA_BATCH if device.startswith("cuda") else CPU_BATCH


def _autocast_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    assert name in get_args(Dtype)
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype
