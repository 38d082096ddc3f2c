"""A plain U-Net trained as long as the built-in model: the floor that this must reach.

    python benchmarks/bench_unet.py --data FOLDER --cpu-seconds N --work FOLDER
        --own-steps N --own-cpu-seconds N [--recipe train-builtin]
        [--rates 3e-4 1e-3 3e-3] [--model builtin] [--json FILE]

The rival is segmentation_models_pytorch's U-Net on a ResNet-18 without pretraining
(pip install 'geoseg[bench]'), its loss cross entropy plus Dice. Loader, augmentation,
crops, optimiser, schedule and average are those of the recipe that made the built-in
model, whose training took `--own-cpu-seconds` and `--own-steps` in all; each learning
rate gets `--cpu-seconds`.
Both are scored by `geoseg segment` on the scenes that nobody trained on, by one
confusion matrix over all of them. The best of the rates counts, chosen on these very
scenes: that flatters the rival.

Training goes on from the checkpoints in `--work` when the same command runs again.
Rates may be run one after the other, `--rates 3e-4` and so on: rows that `--json` has
of the same seconds and the same recipe stay in it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import commit, known_results, write_results
from score_builtin import score, segment
from timed_training import Loss, TimedTraining
from torch import Tensor

from geoseg.config import compose, convert, dump, override
from geoseg.data.chips import ChipSampler, chip_sampler
from geoseg.data.labelled import IGNORE, LabelledScene
from geoseg.data.sources import open_split
from geoseg.data.survey import survey
from geoseg.models.export import save_model
from geoseg.pipelines.train import TrainConfig

if find_spec("segmentation_models_pytorch") is None:
    raise SystemExit("the rival is not installed: pip install 'geoseg[bench]'")
from segmentation_models_pytorch.losses import DiceLoss
from unet import UNet, UNetConfig

LOSS = "cross entropy + Dice"


def main() -> None:
    """Train, segment, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="labelled scenes")
    parser.add_argument("--cpu-seconds", type=float, required=True)
    parser.add_argument("--own-steps", type=int, required=True)
    parser.add_argument("--own-cpu-seconds", type=float, required=True)
    parser.add_argument("--recipe", default="train-builtin")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, masks")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--model", default="builtin", help="the model to compare with")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    # Workers of `geoseg segment` import the rival, too.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # The rival always starts from random weights, and its rate decays: so it learns
    # best from there, whatever the recipe does that goes on from learned ones.
    settings = [override("data.root", arguments.data), override("start_from", None)]
    settings.append(override("train.power", 0.9))
    recipe = convert(compose(arguments.recipe, settings), TrainConfig)
    torch.set_num_threads(recipe.torch_threads)
    split = open_split(recipe.data, ("train", "test"))
    chips = chip_sampler(survey(split.train, recipe.data), recipe.data, recipe.chips)
    ids = [entry.id for entry in recipe.data.classes]
    masks = segment(split.test, arguments.model, ids, arguments.work / "geoseg")
    own = score(masks, split.test) | {"model": arguments.model}
    own |= {"steps": arguments.own_steps, "cpu_seconds": arguments.own_cpu_seconds}
    setup = {
        "held_out": [scene.name for scene in split.test],
        "classes": [entry.name for entry in recipe.data.classes],
        "loss": LOSS,
        "recipe": arguments.recipe,
        "train": dump(recipe.train),
        "chips": dump(recipe.chips),
        "data": dump(replace(recipe.data, root=Path())),
        "cpu_seconds": arguments.cpu_seconds,
    }
    known = known_results(arguments.json, setup).get("scores", {})
    rivals = {name: row for name, row in known.items() if name.startswith("U-Net")}
    for rate in arguments.rates:
        print(f"learning rate {rate:g}", flush=True)
        rivals[f"U-Net, {rate:g}"] = rival(
            recipe, chips, split.test, rate, arguments.cpu_seconds, arguments.work
        )
    best = max(rivals, key=lambda name: rivals[name]["miou"])
    lead = own["miou"] - rivals[best]["miou"]
    rows = {"geoseg": own, **rivals}
    print_table(setup["classes"], rows)
    print(f"geoseg less the best U-Net ({best}): {lead:+.4f} mIoU")
    if arguments.json is not None:
        best_of = {"best": best, "miou_lead": round(lead, 4)}
        write_results(arguments.json, {**setup, "scores": rows, **best_of})


def rival(
    recipe: TrainConfig,
    chips: ChipSampler,
    held_out: Sequence[LabelledScene],
    rate: float,
    seconds: float,
    work: Path,
) -> dict[str, Any]:
    """Train a U-Net with one learning rate and score its average."""
    data, loop = recipe.data, replace(recipe.train, learning_rate=rate)
    folder = work / f"unet-{rate:g}"
    torch.manual_seed(loop.seed)
    training = TimedTraining(
        UNet(UNetConfig(num_classes=len(data.classes))),
        make_loss(),
        chips,
        loop,
        chip_size=recipe.chips.size,
        data=data,
        seconds=seconds,
    )
    parts = {"train": loop, "chips": recipe.chips, "data": data}
    settings = {name: dump(part) for name, part in parts.items()} | {"seconds": seconds}
    training.run(folder / "last.pt", settings)
    save_model(
        training.average,
        folder / "model",
        classes=data.table.infos,
        mean=data.mean,
        std=data.std,
        tile_size=recipe.tile_size,
        resolution=data.resolution,
    )
    ids = [entry.id for entry in data.classes]
    masks = segment(
        held_out, str(folder / "model"), ids, folder, ["model.imports=[unet]"]
    )
    return score(masks, held_out) | {
        "learning_rate": rate,
        "steps": training.step,
        "cpu_seconds": round(training.spent, 1),
        "commit": commit(),
    }


def make_loss() -> Loss:
    """Return cross entropy plus Dice over the pixels that have a label."""
    dice = DiceLoss(mode="multiclass", ignore_index=IGNORE)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        # The mean would be NaN where no pixel has a label.
        return entropy / (labels != IGNORE).sum().clamp_min(1) + dice(logits, labels)

    return loss


def print_table(names: Sequence[str], rows: dict[str, dict[str, Any]]) -> None:
    """One row a model, one column a class."""
    titles = ["steps", "CPU s", "mIoU", "accuracy", *names]
    print(f"{'':>16}" + "".join(f"{title:>12}" for title in titles))
    for name, row in rows.items():
        cells = [row["miou"], row["accuracy"], *row["iou"]]
        spent = f"{row['steps']:>12}{row['cpu_seconds']:>12.0f}"
        print(f"{name:>16}{spent}" + "".join(f"{cell:>12.3f}" for cell in cells))


if __name__ == "__main__":
    main()
