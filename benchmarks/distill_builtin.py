"""Show the built-in model's encoder what an aerial ResNet-18 sees, before any label.

    pip download --no-deps geoembed==1.1.2
    unzip geoembed-1.1.2-py3-none-any.whl geoembed/weights/v3.npz
    python benchmarks/distill_builtin.py --data FOLDER --teacher geoembed/weights/v3.npz
        --work FOLDER [--recipe train-builtin] [--chips 1500] [--cpu-seconds 4500]

Four scenes are few: from random weights a network learns what tells their classes
apart there, and little of that holds elsewhere. The teacher saw other places (geoembed
1.1.2, MIT; a ResNet-18 whose first layers do not halve the image). The student is all
that comes before the queries: ViT, adapter and pixel decoder of the recipe's model. It
learns to tell the teacher's features from pixels (FitNets, Romero et al., 2015), with
colours changed for the student only, so that it answers alike under another light.

Writes `--work`/model, where `geoseg train --set start_from=...` goes on; class and
query heads in it are random. Both phases go on from `--work` when the same command runs
again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from timed_training import TimedTraining
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from transformers.modeling_outputs import SemanticSegmenterOutput

from geoseg.config import compose, convert, dump, override
from geoseg.data.augment import recolor, turn
from geoseg.data.chips import ChipSampler, chip_sampler
from geoseg.data.sources import open_split
from geoseg.data.survey import survey
from geoseg.io.atomic import atomic_path
from geoseg.models.export import save_model
from geoseg.models.segmenter import build_mask2former
from geoseg.pipelines.train import TrainConfig

LAYERS = {"layer4": 64, "layer3": 32}
"""The teacher's layers, and how many of their principal components are learned."""

STRIDE = 4
"""Pixels of a chip that one place of the targets stands for."""

BLOCK = 60
"""Chips in a file of targets; the components are those of the first file."""

SEED = 77
"""Apart from the training's, which draws its own chips."""


def main() -> None:
    """Compute targets, train, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="labelled scenes")
    parser.add_argument("--teacher", type=Path, required=True, help="weights, .npz")
    parser.add_argument("--work", type=Path, required=True, help="targets, checkpoints")
    parser.add_argument("--recipe", default="train-builtin")
    parser.add_argument("--scenes", nargs="+", help="in place of the recipe's")
    parser.add_argument("--chips", type=int, default=1500)
    parser.add_argument("--cpu-seconds", type=float, default=4500)
    arguments = parser.parse_args()
    settings = [override("data.root", arguments.data), override("start_from", None)]
    if arguments.scenes:
        settings.append(override("data.split.train", arguments.scenes))
    recipe = convert(compose(arguments.recipe, settings), TrainConfig)
    torch.set_num_threads(recipe.torch_threads)
    data = recipe.data
    split = open_split(data, ("train",))
    # The teacher sees the colours that the scenes have.
    cut = replace(recipe.chips, color=0.0)
    teacher = Teacher(arguments.teacher)
    blocks = -(-arguments.chips // BLOCK)
    sampler = chip_sampler(survey(split.train, data), data, cut)
    targets = [
        look(teacher, sampler, arguments.work, number, cut.size)
        for number in range(blocks)
    ]
    student = Student(recipe, len(data.classes))
    # Batches as large as a step's, of one size throughout.
    loop = replace(recipe.train, learning_rate=1e-3, ema_decay=0.99, final_share=0.0)
    training = TimedTraining(
        student,
        imitation,
        SeenChips(targets, recipe.chips.color),
        loop,
        chip_size=recipe.chips.size,
        data=data,
        seconds=arguments.cpu_seconds,
    )
    parts = {"train": loop, "chips": recipe.chips, "data": data}
    told = {name: dump(part) for name, part in parts.items()}
    told |= {"seconds": arguments.cpu_seconds, "blocks": blocks}
    training.run(arguments.work / "last.pt", told)
    save_model(
        training.average.model,
        arguments.work / "model",
        classes=data.table.infos,
        mean=data.mean,
        std=data.std,
        tile_size=recipe.tile_size,
        resolution=data.resolution,
    )
    print(f"{training.step} steps; the model: {arguments.work / 'model'}")


class Teacher:
    """geoembed's ResNet-18 up to its last convolution, in bfloat16.

    Args:
        path: Its weights as the package ships them, `geoembed/weights/v3.npz`.
    """

    def __init__(self, path: Path) -> None:
        network = resnet18()
        # As for small images: nothing is halved before the second stage.
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        network.fc = nn.Identity()
        state = {}
        with np.load(path) as stored:
            for key in stored.files:
                if key.startswith("bb."):
                    name = key.removeprefix("bb.").replace(".short.", ".downsample.")
                    name = name.replace("stem.0", "conv1").replace("stem.1", "bn1")
                    state[name] = torch.from_numpy(stored[key])
        found = network.load_state_dict(state, strict=False)
        missing = [key for key in found.missing_keys if "batches_tracked" not in key]
        if missing or found.unexpected_keys:
            raise SystemExit(f"{path} is not geoembed's v3.npz")
        network.eval().to(memory_format=torch.channels_last)
        self.network = create_feature_extractor(network, list(LAYERS))

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Compute features of an image, (3, H, W) in 0..1, by layer, (C, h, w)."""
        pixels = (image[None] * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            features = self.network(pixels)
        return {layer: value[0].float() for layer, value in features.items()}


@dataclass(frozen=True, slots=True)
class Seen:
    """Chips and what the teacher says of them."""

    images: Tensor
    """(N, 3, side, side), uint8."""
    features: Tensor
    """Principal components of all layers, (N, K, side / 4, side / 4), float16."""


def look(
    teacher: Teacher, sampler: ChipSampler, work: Path, number: int, side: int
) -> Seen:
    """Let the teacher look at one file of chips, or read what it said before."""
    path = work / "targets" / f"{number:04}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        print(f"targets {number}", flush=True)
        keys = range(number * BLOCK, (number + 1) * BLOCK)
        images = torch.stack([sampler.chip((SEED, key), side)[0] for key in keys])
        features = [teacher(image) for image in images]
        axes = work / "targets" / "components.npz"
        if not axes.exists():
            with atomic_path(axes) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **components(features))
        with np.load(axes) as stored:
            projected = torch.stack([project(one, dict(stored)) for one in features])
        with atomic_path(path) as temporary:
            torch.save(((images * 255).round().byte(), projected.half()), temporary)
    return Seen(*torch.load(path, weights_only=True))


def components(features: list[dict[str, Tensor]]) -> dict[str, npt.NDArray[np.float32]]:
    """Find the principal axes of each layer, and how their lengths are evened out.

    Lengths become their square roots: the first few axes would be all of the loss, and
    evened out wholly the last ones would be noise.

    Returns:
        By layer: mean (C) and axes (C, K), of which the mean variance is one.
    """
    rng, found = np.random.default_rng(SEED), {}
    for layer, count in LAYERS.items():
        rows = np.concatenate(
            [rng.permutation(one[layer].flatten(1).T.numpy())[:150] for one in features]
        )
        mean = rows.mean(0)
        _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=False)
        scaled = axes[:count].T / np.sqrt(lengths[:count])
        scaled /= ((rows - mean) @ scaled).std()
        found |= {f"{layer}.mean": mean, f"{layer}.axes": scaled}
    return found


def project(
    features: dict[str, Tensor], axes: dict[str, npt.NDArray[np.float32]]
) -> Tensor:
    """Express features by the components, all layers at one stride: (K, h, w)."""
    side = features["layer3"].shape[-1]
    parts = []
    for layer in LAYERS:
        mean, turned = (
            torch.from_numpy(axes[f"{layer}.{part}"]) for part in ("mean", "axes")
        )
        rows = (features[layer].movedim(0, -1) - mean) @ turned
        part = rows.movedim(-1, 0)[None]
        parts.append(F.interpolate(part, size=(side, side), mode="bilinear")[0])
    return torch.cat(parts)


class SeenChips:
    """Draws batches of chips with the teacher's features in place of labels."""

    def __init__(self, blocks: list[Seen], color: float) -> None:
        self.images = torch.cat([block.images for block in blocks])
        self.features = torch.cat([block.features for block in blocks])
        self.color = color

    def batch(
        self, seed: int, step: int, count: int, side: int
    ) -> tuple[Tensor, Tensor]:
        """Draw images (B, 3, side, side) in 0..1 and features (B, K, h, w)."""
        assert side == self.images.shape[-1]
        rng = np.random.default_rng((SEED, seed, step))
        pairs = [self._draw(rng) for _ in range(count)]
        images, features = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(features)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = int(rng.integers(len(self.images)))
        image = self.images[chosen].float() / 255
        features = self.features[chosen].float()
        image, features = turn(rng, image, features)
        return recolor(rng, image, self.color), features


class Student(nn.Module):
    """The model's encoder and pixel decoder, with a linear layer to the targets.

    Two answers are asked for: of the mask features, and of the ViT's patches alone,
    which would else leave it all to the convolutions beside them.
    """

    def __init__(self, recipe: TrainConfig, num_labels: int) -> None:
        super().__init__()
        torch.manual_seed(recipe.train.seed)
        self.model = build_mask2former({**recipe.model, "num_labels": num_labels})
        level = self.model.model.pixel_level_module
        vit, count = level.encoder.backbone, sum(LAYERS.values())
        self.patch = vit.config.patch_size
        self.from_masks = nn.Conv2d(self.model.config.mask_feature_size, count, 1)
        self.from_patches = nn.Linear(vit.config.hidden_size, count)

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        """Guess features of normalised pixels: (B, 2, K, H / 4, W / 4)."""
        level = self.model.model.pixel_level_module
        tokens: list[Tensor] = []
        # A hook of its own each time: a copy's would fill the original's list.
        norm = level.encoder.backbone.norm
        hook = norm.register_forward_hook(lambda *call: tokens.append(call[-1]))
        masks = level(pixel_values).decoder_last_hidden_state
        hook.remove()
        rows, cols = (length // self.patch for length in pixel_values.shape[-2:])
        patches = self.from_patches(tokens[0][:, -rows * cols :])
        patches = patches.transpose(1, 2).unflatten(2, (rows, cols))
        spread = F.interpolate(patches, scale_factor=self.patch // STRIDE)
        both = torch.stack([self.from_masks(masks), spread], 1)
        return SemanticSegmenterOutput(logits=both)


def imitation(guesses: Tensor, features: Tensor) -> Tensor:
    """Tell how far both guesses are from the teacher's features.

    Patches are compared by means over as much as they see of them.

    Args:
        guesses: (B, 2, K, h, w), of mask features and of patches.
        features: (B, K, h, w).
    """
    kernel = 16 // STRIDE
    coarse = F.avg_pool2d(features, kernel)
    patches = F.avg_pool2d(guesses[:, 1], kernel)
    fine = F.smooth_l1_loss(guesses[:, 0], features)
    return fine + F.smooth_l1_loss(patches, coarse)


if __name__ == "__main__":
    main()
