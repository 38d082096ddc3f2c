"""Average the weights of models with a common start, or of a start and what it became.

    python benchmarks/average_models.py --data FOLDER MODEL MODEL [MODEL...] -o FOLDER

Such models lie at different sides of what fits the training scenes; their mean lies
between, and fits other scenes better (Wortsman et al., 2022, Model soups, and Robust
fine-tuning of zero-shot models). It is no model at all where there is no common start:
queries of one take classes that those of another do not. So the mean is tried on chips
of the training scenes first, and refused if it is worse there than its worst part.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from geoseg.config import compose, convert, override
from geoseg.data.chips import chip_sampler
from geoseg.data.labelled import IGNORE
from geoseg.data.sources import open_split
from geoseg.data.survey import survey
from geoseg.models.registry import find_model, load_model
from geoseg.models.segmenter import query_logits
from geoseg.pipelines.train import TrainConfig

WEIGHTS = "model.safetensors"
OTHERS = ("config.json", "preprocessor_config.json")

CHIPS = 32
"""Chips of the training scenes that a mean is tried on."""

SEED = 91
"""Of these chips; no training draws them."""

TOLERANCE = 0.05
"""How much larger its loss may be than that of the worst part."""


def main() -> None:
    """Average, try, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="folders, or names of geoseg's")
    parser.add_argument("--data", type=Path, required=True, help="labelled scenes")
    parser.add_argument("--recipe", default="train-builtin")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already; choose another -o")
    folders = [find_model(name) for name in arguments.models]
    write_mean(folders, arguments.out)
    images, labels = draw_chips(arguments.recipe, arguments.data)
    losses = [loss_of(folder, images, labels) for folder in (*folders, arguments.out)]
    for name, loss in zip([*arguments.models, "mean"], losses, strict=True):
        print(f"{loss:8.4f}  {name}")
    *parts, mean = losses
    if not mean <= max(parts) + TOLERANCE:  # or NaN
        shutil.rmtree(arguments.out)
        raise SystemExit(
            "the mean is worse on training scenes than its parts: they have no common "
            "start"
        )


def write_mean(folders: Sequence[Path], out: Path) -> None:
    """Write a model folder whose weights are the mean of those of others."""
    states = [load_file(folder / WEIGHTS) for folder in folders]
    others = described(folders[0])
    for folder, state in zip(folders, states, strict=True):
        if state.keys() != states[0].keys() or described(folder) != others:
            raise SystemExit(f"{folder} is another model than {folders[0]}")
    out.mkdir(parents=True)
    save_file(mean_of(states), out / WEIGHTS, metadata={"format": "pt"})
    for name in OTHERS:
        shutil.copyfile(folders[0] / name, out / name)


def described(folder: Path) -> list[object]:
    """Read what a model folder says of its model; the order of keys says nothing."""
    return [json.loads((folder / name).read_text()) for name in OTHERS]


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average weights in float32; counters are those of the first."""
    mean = {}
    for name, first in states[0].items():
        if first.dtype.is_floating_point:
            values = torch.stack([state[name].float() for state in states])
            mean[name] = values.mean(0).to(first.dtype)
        else:
            mean[name] = first
    return mean


def draw_chips(recipe_name: str, data: Path) -> tuple[Tensor, Tensor]:
    """Draw normalised chips of the training scenes, colours as they are."""
    settings = [override("data.root", data), override("chips.color", 0.0)]
    recipe = convert(compose(recipe_name, settings), TrainConfig)
    torch.set_num_threads(recipe.torch_threads)
    seen = survey(open_split(recipe.data, ("train",)).train, recipe.data)
    chips = chip_sampler(seen, recipe.data, recipe.chips)
    images, labels = chips.batch(SEED, 0, CHIPS, recipe.chips.size)
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1)
        for values in (recipe.data.mean, recipe.data.std)
    )
    return (images - mean) / std, labels


@torch.inference_mode()
def loss_of(folder: Path, images: Tensor, labels: Tensor) -> float:
    """Cross entropy of a model's class probabilities, mean over labelled pixels."""
    model = load_model(folder).eval()
    total = 0.0
    for image, truth in zip(images.split(1), labels.split(1), strict=True):
        output = model(pixel_values=image)
        logits = query_logits(output.class_queries_logits, output.masks_queries_logits)
        logits = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear")
        total += F.cross_entropy(
            logits, truth, ignore_index=IGNORE, reduction="sum"
        ).item()
    return total / int((labels != IGNORE).sum())


if __name__ == "__main__":
    main()
