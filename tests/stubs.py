"""Small models with known answers, as Hugging Face folders that `segment` loads.

Workers import this module through `model.imports: [stubs]`, with `tests/` on
`PYTHONPATH`: the way in which users bring models that transformers does not know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SemanticSegmenterOutput

from geoseg.models.export import save_model
from geoseg.types import ClassInfo

COLORS = [
    (79, 159, 216),
    (217, 195, 154),
    (90, 90, 90),
    (200, 72, 59),
    (91, 161, 80),
    (160, 90, 180),
    (240, 200, 60),
]


class StubConfig(PreTrainedConfig):
    """Configuration of `StubModel`."""

    model_type = "geoseg_stub"

    kind: str = "pointwise"
    num_classes: int = 4
    output_stride: int = 1
    patch_size: int = 16
    fail_on: float | None = None
    fail_by: str = "error"
    log_folder: str | None = None
    seconds: float = 0.0


class StubModel(PreTrainedModel):
    """A model whose logits follow a formula.

    Kinds:
        pointwise: a linear map of the pixel (mean over the output stride).
        seams: a field, the normalised pixel itself, plus an offset per class drawn per
            tile, plus a term in the distance to the tile's edge.
        levels: the class is the red value cut into K equal levels.

    With `fail_on`, a tile that holds a pixel of exactly that normalised red raises,
    ends the process, takes all memory, or gives NaN, as `fail_by` says.
    With `log_folder`, each load and each forward pass appends a line to a file there
    named for the process: pid-loads and pid-tiles.
    """

    config: StubConfig
    config_class = StubConfig
    main_input_name = "pixel_values"

    def __init__(self, config: StubConfig) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(config.num_classes, 3, generator=generator)
        bias = torch.randn(config.num_classes, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.post_init()  # type: ignore[no-untyped-call]
        self._logged_load = False

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def forward(self, pixel_values: Tensor, **_: object) -> SemanticSegmenterOutput:
        self._log(len(pixel_values))
        time.sleep(self.config.seconds)
        pooled = F.avg_pool2d(pixel_values.float(), self.config.output_stride)
        logits = getattr(self, f"_{self.config.kind}")(pooled)
        if self.config.fail_on is not None:
            hit = (pixel_values[:, 0] - self.config.fail_on).abs() < 1e-6
            if bool(hit.any()):
                self._fail(logits)
        return SemanticSegmenterOutput(logits=logits)

    def _fail(self, logits: Tensor) -> None:
        if self.config.fail_by == "error":
            raise RuntimeError("the stub was told to fail\non this tile")
        if self.config.fail_by == "exit":
            os._exit(1)
        if self.config.fail_by == "memory":
            _take_memory()
        logits[:, 0, 0, 0] = torch.nan

    def _pointwise(self, pixels: Tensor) -> Tensor:
        linear = torch.einsum("bchw,kc->bkhw", pixels, self.weight.float())
        return linear + self.bias.float().view(1, -1, 1, 1)

    def _levels(self, pixels: Tensor) -> Tensor:
        count = self.config.num_classes
        centers = (torch.arange(count, device=pixels.device) + 0.5) / count
        return -100.0 * (pixels[:, :1] - centers.view(1, -1, 1, 1)) ** 2

    def _seams(self, pixels: Tensor) -> Tensor:
        batch, _, height, width = pixels.shape
        logits = pixels.clone()
        for index in range(batch):
            # The tile's content decides its offset: the same tile, the same offset.
            seed = int(pixels[index].double().abs().sum() * 1e3) % (1 << 31)
            generator = torch.Generator().manual_seed(seed)
            offset = torch.randn(logits.shape[1], generator=generator)
            logits[index] += offset.view(-1, 1, 1)
        rows = torch.arange(height) + 0.5
        cols = torch.arange(width) + 0.5
        edge = torch.minimum(
            torch.minimum(rows, height - rows)[:, None],
            torch.minimum(cols, width - cols)[None, :],
        )
        logits[:, 0] += torch.exp(-edge / 8)
        return logits

    def _log(self, tiles: int) -> None:
        folder = self.config.log_folder
        if folder is None:
            return
        if not self._logged_load:
            self._logged_load = True
            with (Path(folder) / f"{os.getpid()}-loads").open("a") as stream:
                stream.write("load\n")
        with (Path(folder) / f"{os.getpid()}-tiles").open("a") as stream:
            stream.write(f"{tiles}\n")


def _take_memory() -> None:
    """Take memory until somebody ends the process, 6 GB at most."""
    taken = []
    for _ in range(120):
        taken.append(bytearray(os.urandom(1) * 50_000_000))
        time.sleep(0.05)
    raise MemoryError


AutoConfig.register(StubConfig.model_type, StubConfig)
AutoModelForSemanticSegmentation.register(StubConfig, StubModel)


def save_stub(
    folder: Path,
    *,
    kind: str = "pointwise",
    num_classes: int = 4,
    tile_size: int = 64,
    output_stride: int = 1,
    resolution: float | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    fail_on: float | None = None,
    fail_by: str = "error",
    log_folder: Path | None = None,
    seconds: float = 0.0,
) -> Path:
    """Write a stub as a model folder; classes have the ids 1..K."""
    if log_folder is not None:
        log_folder.mkdir(exist_ok=True)
    config = StubConfig(
        kind=kind,
        output_stride=output_stride,
        num_classes=num_classes,
        fail_on=fail_on,
        fail_by=fail_by,
        log_folder=None if log_folder is None else str(log_folder),
        seconds=seconds,
    )
    classes = [
        ClassInfo(i + 1, f"class {i + 1}", COLORS[i % len(COLORS)])
        for i in range(num_classes)
    ]
    return save_model(
        StubModel(config),
        folder,
        classes=classes,
        mean=mean,
        std=std,
        tile_size=tile_size,
        resolution=resolution,
    )


def logged_tiles(log_folder: Path) -> dict[int, int]:
    """Tiles that each process predicted, by process id."""
    return {
        int(path.name.split("-")[0]): sum(map(int, path.read_text().split()))
        for path in log_folder.glob("*-tiles")
    }


def logged_loads(log_folder: Path) -> dict[int, int]:
    """Models that each process loaded, by process id."""
    return {
        int(path.name.split("-")[0]): len(path.read_text().split())
        for path in log_folder.glob("*-loads")
    }


def clear_log(log_folder: Path) -> None:
    """Forget what was logged."""
    for path in log_folder.iterdir():
        path.unlink()
