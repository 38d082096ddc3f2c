"""The predictor: normalised batches of tiles in, class logits out."""

from __future__ import annotations

import itertools
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.models import class_logits, load_model
from geoseg.models.registry import import_modules, read_spec, weights_sha256
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
    """Model folder or checkpoint, as the workers see it."""
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
        self.ahead = 1 if self.device.type == "cuda" else 0
        """Batches that run while the next is made ready; a CPU has no time for it."""

    @classmethod
    def load(cls, config: PredictorConfig, device: str | None = None) -> Predictor:
        """Load the model that `config` names.

        Raises:
            ModelError: The folder is not there, or has other weights than expected.
        """
        torch.set_num_threads(config.torch_threads)
        import_modules(config.imports)
        check_weights(config)
        folder = Path(config.folder)
        spec = read_spec(folder, tile_size=config.tile_size)
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
        running: deque[_Running] = deque()
        source = iter(tiles)
        while group := list(itertools.islice(source, self.config.batch_size)):
            running.append(self._launch(*self._stack(group), len(group), scale))
            if len(running) > self.ahead:
                yield from running.popleft().logits()
        for launched in running:
            yield from launched.logits()

    def _stack(self, group: Sequence[TileInput]) -> tuple[Tensor, Tensor | None]:
        """Pixels of a batch as they were read, and where they hold data.

        Digital numbers are a quarter of their float32, and arithmetic is what the
        device does best: neither is scaled here.

        Returns:
            Values (B, C, size, size), and valid (B, 1, size, size), None where all are.
            A short batch is filled up with its last tile, because kernels may sum in
            another order at another size.
        """
        filled = [*group, *[group[-1]] * (self.config.batch_size - len(group))]
        tiles = [self._padded(tile) for tile in filled]
        values = self._on_host([torch.from_numpy(tile.values) for tile in tiles])
        if all(tile.valid.all() for tile in group):
            return values, None
        return values, self._on_host([torch.from_numpy(t.valid[None]) for t in tiles])

    def _on_host(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stack tensors in memory that the device can fetch from by itself."""
        shape = (len(tensors), *tensors[0].shape)
        pinned = self.device.type == "cuda"
        stacked = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=pinned)
        for place, tensor in zip(stacked, tensors, strict=True):
            place.copy_(tensor)
        return stacked

    def _padded(self, tile: TileInput) -> TileInput:
        size = self.config.tile_size
        values, (height, width) = tile.values, tile.valid.shape
        if values.dtype == np.float64:  # What is too large for float32 is not valid.
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        if (height, width) == (size, size):
            return TileInput(values, tile.valid)
        margins = ((0, size - height), (0, size - width))
        return TileInput(
            np.pad(values, ((0, 0), *margins), mode="reflect"),
            np.pad(tile.valid, margins, mode="reflect"),
        )

    @torch.inference_mode()
    def images(self, tiles: Sequence[TileInput], scale: float) -> Tensor:
        """Return what the model gets of tiles, (B, C, size, size) float32, normalised.

        Args:
            tiles: One batch, or less, which is filled up with the last tile.
            scale: The digital number that means 1.0.
        """
        return self._normalized(*self._stack(tiles), scale)

    def _normalized(self, values: Tensor, valid: Tensor | None, scale: float) -> Tensor:
        pixels = values.to(self.device, non_blocking=True)
        # Not in the model's order of memory, channels last: its first layer does that
        # as fast, and arithmetic by channel is a tenth of the work this way.
        images = pixels.to(torch.float32)
        # By what means 1.0, per dataset: never by what a tile happens to hold.
        images.mul_(1 / (scale * self.std)).sub_(self.mean / self.std)
        if valid is not None:
            # The mean, where there is no data.
            images.masked_fill_(~valid.to(self.device, non_blocking=True), 0.0)
        return images

    @torch.inference_mode()
    def _launch(
        self, values: Tensor, valid: Tensor | None, count: int, scale: float
    ) -> _Running:
        """Normalise a batch and run the model; CUDA goes on after this returns."""
        images = self._normalized(values, valid, scale)
        passes = FLIPS if self.config.tta else PLAIN
        logits = self._logits(images, passes[0])
        for axes in passes[1:]:
            logits = logits + self._logits(images, axes)
        logits = logits[:count] / len(passes)
        clipped = logits.clamp(-FLOAT16_LIMIT, FLOAT16_LIMIT)
        # Infinity must not pass for a large number: blending refuses NaN by name.
        logits = clipped.masked_fill(~logits.isfinite(), torch.nan).to(torch.float16)
        return _Running(logits)

    def _logits(self, images: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Class logits (B, K, h, w) of images flipped along axes, flipped back."""
        flipped = images.flip(axes) if axes else images
        with torch.autocast(
            self.device.type,
            dtype=self.dtype,
            enabled=self.dtype != torch.float32,
        ):
            output = self.model(pixel_values=flipped)
        logits = class_logits(output)
        return logits.float().flip(axes) if axes else logits


class _Running:
    """Logits of a batch on their way from the device."""

    def __init__(self, logits: Tensor) -> None:
        """Begin to fetch logits (B, K, h, w)."""
        self._event: torch.cuda.Event | None = None
        self._host = logits.contiguous()
        if logits.is_cuda:
            self._host = torch.empty_like(logits, device="cpu", pin_memory=True)
            self._host.copy_(logits, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def logits(self) -> Iterator[npt.NDArray[np.float16]]:
        """Wait for them; yield (K, h, w) of each tile."""
        if self._event is not None:
            self._event.synchronize()
        for tile in self._host.numpy():
            # Pinned memory is scarce, and bands keep their logits for a while.
            yield tile if self._event is None else tile.copy()


def check_weights(config: PredictorConfig) -> None:
    """Check that a model is where it is said to be, and the one that is meant.

    Raises:
        ModelError: The folder is not there, or has other weights than expected.
    """
    folder = Path(config.folder)
    if not folder.exists():
        raise ModelError(
            f"{folder} is not on this worker; put the model on a path that every "
            "worker sees"
        )
    found = weights_sha256(folder)
    if found != config.sha256:
        raise ModelError(
            f"{folder} has other weights on this worker ({found[:12]}) than where the "
            f"run was started ({config.sha256[:12]}); copy the same model to all"
        )


def choose_device(name: str, *, here: bool = True) -> str:
    """Resolve `auto` to `cuda` where there is one, else `cpu`.

    Args:
        name: The device asked for.
        here: Whether workers run on this machine: others may have GPUs, if it has none.

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
    if not here:
        return name
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
