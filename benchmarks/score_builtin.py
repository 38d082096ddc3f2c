"""Score a model on the held-out Dubai scenes beside a colour-and-blur classifier.

    python benchmarks/score_builtin.py --data FOLDER [--model builtin] [--zero-vit]

Each held-out scene's 3 x 3 parts are joined to one raster, which `geoseg segment` turns
into a class mask; one confusion matrix over both scenes gives IoU by class. The rival
is a pixel classifier (scikit-learn's boosted trees on colour and Gaussian blurs of it),
fitted on the training scenes by the same call. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from record import write_results
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

import geoseg
from geoseg.config import compose, convert, override
from geoseg.data.classes import ClassTable
from geoseg.data.config import DataConfig
from geoseg.data.labelled import IGNORE, LabelledScene
from geoseg.data.parts import load_part_scene
from geoseg.evaluation.counts import SceneCounts, count_confusion
from geoseg.evaluation.metrics import measure
from geoseg.models.registry import find_model, load_model, read_spec
from geoseg.pipelines.evaluate_scenes import image_files

HELD_OUT = ("tile-2", "tile-6")
SAMPLES_PER_CLASS_AND_SCENE = 6000
SIGMAS = (1.0, 3.0, 8.0)


def main() -> None:
    """Fit, segment, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="labelled scenes")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--zero-vit", action="store_true", help="also score without it")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    recipe = compose("train-builtin", [override("data.root", str(arguments.data))])
    data = convert(recipe["data"], DataConfig)
    names = [entry.name for entry in data.classes]
    ids = [entry.id for entry in data.classes]
    held_out = load(arguments.data, HELD_OUT, data.table)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        scores = {
            "geoseg": score(segment(held_out, arguments.model, ids, work), held_out)
        }
        if arguments.zero_vit:
            zeroed = without_vit(arguments.model, work / "zeroed")
            masks = segment(held_out, str(zeroed), ids, work / "without")
            scores["geoseg, ViT zeroed"] = score(masks, held_out)
    training = load(arguments.data, data.split.train, data.table)
    # Both readings of the rival: the better one is the floor to beat.
    for title, masks in rival(training, held_out, len(names)).items():
        scores[title] = score(masks, held_out)
    print_table(names, scores)
    if arguments.json is not None:
        figures = {"held_out": list(HELD_OUT), "classes": names, "scores": scores}
        write_results(arguments.json, figures)


def load(root: Path, names: Sequence[str], table: ClassTable) -> list[LabelledScene]:
    """Scenes by name, their parts joined."""
    return [load_part_scene(root, name, table) for name in names]


def segment(
    scenes: Sequence[LabelledScene],
    model: str,
    ids: Sequence[int],
    work: Path,
    settings: Sequence[str] = (),
) -> list[npt.NDArray[np.uint8]]:
    """Class indices of each scene by `geoseg segment`, 255 where it gave none.

    Args:
        scenes: What is segmented.
        model: Name or folder of the model.
        ids: Ids of its classes, in the order of the indices.
        work: Folder of scenes and masks.
        settings: "key=value" of the recipe.
    """
    # Written once: what was segmented before a kill is not segmented again.
    files = list(image_files(scenes, work).values())
    started = time.perf_counter()
    # On a busy machine workers start late.
    patient = [*settings, "cluster.timeout=300"]
    geoseg.segment(files, work / "out", model=model, resolution="native", set=patient)
    print(f"geoseg segment: {time.perf_counter() - started:.0f} s")
    masks = []
    for scene in scenes:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(work / "out" / scene.name / "classes.tif") as raster,
        ):
            mask = raster.read(1)
        indices = np.full(mask.shape, IGNORE, np.uint8)
        for index, value in enumerate(ids):
            indices[mask == value] = index
        masks.append(indices)
    return masks


def without_vit(model: str, folder: Path) -> Path:
    """The same model with the ViT's features zeroed: its final norm gives nothing."""
    source = find_model(model)
    network: Any = load_model(source)
    vit = network.model.pixel_level_module.encoder.backbone
    with torch.no_grad():
        vit.norm.weight.zero_()
        vit.norm.bias.zero_()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        (source / "preprocessor_config.json").read_text()
    )
    assert read_spec(folder).classes == read_spec(source).classes
    return folder


def rival(
    training: Sequence[LabelledScene],
    held_out: Sequence[LabelledScene],
    num_classes: int,
) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """Class indices by boosted trees on each pixel's colour and blurs of it.

    Sampling evened the classes out: once as it is, once with their real shares brought
    back as a prior.
    """
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for scene in training:
        features = color_and_blur(scene.image)
        for index in range(num_classes):
            places = np.flatnonzero(scene.labels == index)
            count = min(len(places), SAMPLES_PER_CLASS_AND_SCENE)
            chosen = rng.choice(places, count, replace=False)
            rows.append(features[chosen])
            labels.append(np.full(count, index))
    trees = HistGradientBoostingClassifier(max_iter=200, random_state=0)
    trees.fit(np.concatenate(rows), np.concatenate(labels))
    counts = sum(
        np.bincount(s.labels[s.labels != IGNORE], minlength=num_classes)
        for s in training
    )
    prior = counts / np.sum(counts)
    masks: dict[str, list[npt.NDArray[np.uint8]]] = {"colour and blur": []}
    masks["the same, even prior"] = []
    for scene in held_out:
        even = trees.predict_proba(color_and_blur(scene.image))
        for title, likely in zip(masks, (even * prior, even), strict=True):
            best = likely.argmax(1).astype(np.uint8)
            masks[title].append(best.reshape(scene.labels.shape))
    return masks


def color_and_blur(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Features of each pixel, (H * W, 3 + 6 * len(SIGMAS)): colour, blur and spread."""
    values = image.astype(np.float32) / 255
    features = [values]
    for sigma in SIGMAS:
        window = (0, sigma, sigma)
        mean = ndimage.gaussian_filter(values, window)
        square = ndimage.gaussian_filter(values**2, window)
        features += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
    return np.concatenate(features).reshape(3 + 6 * len(SIGMAS), -1).T


def score(
    masks: Sequence[npt.NDArray[np.uint8]], scenes: Sequence[LabelledScene]
) -> dict[str, Any]:
    """IoU by class and their mean over one confusion matrix of all scenes."""
    count = 1 + max(int(s.labels[s.labels != IGNORE].max()) for s in scenes)
    # The last column is for pixels that got no class: they are wrong.
    size = count, count + 1
    confusion = sum(
        count_confusion(scene.labels, np.minimum(mask, count), size)
        for mask, scene in zip(masks, scenes, strict=True)
    )
    found = measure(replace(SceneCounts.zeros(*size), confusion=confusion))
    return {
        "miou": round(float(found.mean_iou), 4),
        "iou": [round(float(value), 4) for value in found.iou],
        "accuracy": round(float(found.accuracy), 4),
    }


def print_table(names: Sequence[str], scores: dict[str, dict[str, Any]]) -> None:
    """One row a method, one column a class."""
    print("".join(f"{h:>20}" if i == 0 else f"{h:>12}" for i, h in enumerate(
        ["", "mIoU", "accuracy", *names])))  # fmt: skip
    for method, row in scores.items():
        cells = [row["miou"], row["accuracy"], *row["iou"]]
        print(f"{method:>20}" + "".join(f"{cell:>12.3f}" for cell in cells))


if __name__ == "__main__":
    main()
