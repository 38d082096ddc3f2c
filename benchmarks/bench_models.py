"""What the native attention changes in models: time, and class masks.

    python benchmarks/bench_models.py [--data FOLDER] [--json FILE] [--threads N]

The built-in model, and adapter and head of the size that goes with a ViT-L (random
weights), segment tiles of 720 pixels of the scenes in `--data` (without: noise), each
with the operator and with the PyTorch reference, in turn. Where their masks differ, the
two classes that lead must be nearly level.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import rasterio
import torch
import yaml
from record import ROOT, write_results
from torch import Tensor, nn

from geoseg.models.registry import builtin_folder, load_model, read_spec
from geoseg.models.segmenter import build_mask2former, class_logits
from geoseg.ops import LIBRARY, use_reference

TILE = 720
MOST_DIFFERING, MOST_LEAD = 1e-5, 1e-4
VIT_L = ROOT / "configs" / "models" / "dinov3-vitl16-sat493m-loveda.yaml"


def main() -> None:
    """Compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--tiles", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if not LIBRARY.loaded:
        raise SystemExit(f"there is nothing to measure: {LIBRARY.reason}")
    torch.set_num_threads(arguments.threads)
    images = tiles(arguments.data, arguments.tiles)
    rows = {
        "built-in model": compare(builtin(images), arguments.repeats),
        "ViT-L's adapter and pixel decoder": compare(large(images), arguments.repeats),
    }
    for name, row in rows.items():
        print(
            f"{name}: {row['reference_s']:.2f} s with the reference, "
            f"{row['native_s']:.2f} s with the operator "
            f"({row['reference_s'] / row['native_s']:.1f}x); {row['differing']} of "
            f"{row['pixels']} pixels differ, the largest lead there is "
            f"{row['lead']:.1e}; logits differ by {row['logits']:.1e} at most"
        )
        if (
            row["differing"] > MOST_DIFFERING * row["pixels"]
            or row["lead"] >= MOST_LEAD
        ):
            print(f"{name}: MISSED: at most {MOST_DIFFERING:g} of all may differ")
    if arguments.json is not None:
        write_results(arguments.json, {"threads": arguments.threads, "models": rows})


def compare(run: list[Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Seconds by the reference and the operator, and how their class masks differ.

    Args:
        run: For each tile, what gives its logits, (1, K, h, w).
        repeats: How often each is timed, in turn; medians count.
    """
    seconds: dict[str, list[float]] = {"reference": [], "native": []}
    pixels = differing = 0
    lead = logits = 0.0
    with torch.inference_mode():
        for turn in range(repeats + 1):  # The first warms up.
            for call in run if not turn else run[:1]:
                found = {}
                # Who goes first changes from turn to turn.
                for name in list(seconds)[:: 1 if turn % 2 else -1]:
                    with use_reference() if name == "reference" else nullcontext():
                        started = time.perf_counter()
                        found[name] = call()
                        if turn:
                            seconds[name].append(time.perf_counter() - started)
                if turn:
                    continue
                own, other = (_upsampled(found[n]) for n in ("native", "reference"))
                classes = other.argmax(1).unique().numel()
                if not (own.isfinite().all() and classes > 1):
                    raise SystemExit("there is no class mask to compare")
                apart = own.argmax(1) != other.argmax(1)
                first, second = other.topk(2, dim=1).values.unbind(1)
                pixels += apart.numel()
                differing += int(apart.sum())
                logits = max(logits, float((own - other).abs().max()))
                if apart.any():
                    lead = max(lead, float((first - second)[apart].max()))
    medians = {f"{name}_s": statistics.median(seen) for name, seen in seconds.items()}
    counts = {"pixels": pixels, "differing": differing}
    return medians | counts | {"lead": lead, "logits": logits}


def builtin(images: list[Tensor]) -> list[Callable[[], Tensor]]:
    """The built-in model."""
    return _on_each(load_model(builtin_folder()), images)


def large(images: list[Tensor]) -> list[Callable[[], Tensor]]:
    """Adapter and pixel decoder of a ViT-L, on the first of its blocks, and 7 classes.

    Random weights: of the published ones none are here, and what matters is the size.
    The blocks left out hold no deformable attention. Fresh queries find one class
    everywhere, so the classes are a linear function of the mask features, each with the
    mean and deviation of the others: all seven occur.
    """
    torch.manual_seed(0)
    config = yaml.safe_load(VIT_L.read_text())
    config.pop("pretrained_backbone")
    config["backbone_config"]["backbone_config"]["num_hidden_layers"] = 4
    config["backbone_config"]["interaction_indexes"] = [0, 1, 2, 3]
    module = build_mask2former(config).eval().model.pixel_level_module
    head = nn.Conv2d(module.decoder.mask_projection.out_channels, 7, 1)

    def run() -> Tensor:
        logits = head(module(images[0]).decoder_last_hidden_state)
        spread, mean = torch.std_mean(logits, dim=(2, 3), keepdim=True)
        return (logits - mean) / spread

    return [run]


def _on_each(model: nn.Module, images: list[Tensor]) -> list[Callable[[], Tensor]]:
    model.eval()
    return [lambda image=image: class_logits(model(image)) for image in images]


def tiles(folder: Path | None, count: int) -> list[Tensor]:
    """The upper left corners of as many scenes, normalised, (1, 3, 720, 720)."""
    found = []
    for path in sorted(folder.rglob("*.jpg")) if folder else []:
        with rasterio.open(path) as scene:
            if min(scene.shape) >= TILE and len(found) < count:
                window = rasterio.windows.Window(0, 0, TILE, TILE)
                found.append(scene.read([1, 2, 3], window=window))
    rng = np.random.default_rng(0)
    found = found or [rng.integers(0, 256, (3, TILE, TILE), np.uint8)]
    spec = read_spec(builtin_folder())
    mean = torch.tensor(spec.mean).view(-1, 1, 1)
    std = torch.tensor(spec.std).view(-1, 1, 1)
    return [((torch.from_numpy(t) / 255 - mean) / std)[None] for t in found]


def _upsampled(logits: Tensor) -> Tensor:
    size = (TILE, TILE)
    return nn.functional.interpolate(logits.float(), size=size, mode="bilinear")


if __name__ == "__main__":
    main()
