"""Masks of a run beside the labelled scenes, and the comparison of all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.data.labelled import LabelledSource
from geoseg.discovery.files import located
from geoseg.errors import SceneError
from geoseg.evaluation.matching import ClassPairs
from geoseg.evaluation.predictions import Prediction
from geoseg.evaluation.scene import SceneMasks, SceneScore, ScoreSettings, score_scene
from geoseg.io.location import shown


@dataclass(frozen=True, slots=True)
class MadeMasks:
    """Masks of one run."""

    name: str
    """What tells the run from others."""
    settings: Mapping[str, str]
    """Keys that differ between runs, and their values."""
    folder: Path
    """Run directory."""
    predictions: Mapping[str, Prediction]
    """Finished scenes by id."""
    failures: Mapping[str, str]
    """Why a scene failed, by what was segmented."""
    found: bool = False
    """The run directory was there before: images may have moved since."""

    @property
    def model(self) -> Prediction:
        """A scene, which tells the model; all have the same."""
        return next(iter(self.predictions.values()))

    @property
    def failure(self) -> str:
        """Why there is no mask at all, "" if there is one."""
        if self.predictions:
            return ""
        source, reason = next(iter(self.failures.items()))
        return f"no scene could be segmented; {source}: {reason}"


@dataclass(frozen=True, slots=True)
class Compared:
    """Masks of one run and what a comparison with the labels found."""

    made: MadeMasks
    """The masks."""
    pairs: ClassPairs
    """Classes that were compared."""
    scenes: Mapping[str, SceneMasks]
    """What was compared, by name of the labelled scene."""
    scores: Mapping[str, SceneScore]
    """What was found."""
    failures: Mapping[str, str]
    """Why a scene was not compared."""


def pair_masks(
    sources: Sequence[LabelledSource], files: Mapping[str, str], made: MadeMasks
) -> tuple[dict[str, SceneMasks], dict[str, str]]:
    """Return what is compared, and why other scenes are not, by name of the scene.

    A mask is known by the image that it was made of; in a run directory that was there
    before, else by a name that is one scene's and one mask's only.
    """
    by_image = {_place(one.source): one for one in made.predictions.values()}
    # Two links to one file are one scene where masks are made, and two here.
    by_file = {os.path.realpath(place): one for place, one in by_image.items()}
    images = {one.name: _place(files[one.name]) for one in sources}
    failures = {_place(image): reason for image, reason in made.failures.items()}
    known = {
        name: found
        for name, at in images.items()
        if (found := by_image.get(at) or by_file.get(os.path.realpath(at)))
    }
    named = _by_name(files, known, made) if made.found else {}
    pairs, missing = {}, {}
    for source in sources:
        image = files[source.name]
        found = known.get(source.name) or named.get(source.name)
        if found is not None:
            pairs[source.name] = SceneMasks(
                found.scene_id,
                source,
                image,
                found.mask,
                found.confidence,
                by_name=source.name in named,
            )
        else:
            reason = f"{made.folder} holds no mask of {image}"
            missing[source.name] = failures.get(images[source.name], reason)
    return pairs, missing


def _place(image: str) -> str:
    """Return where an image lies, whichever links led there."""
    told = shown(image)
    if "://" in told:
        return told
    try:
        return located(Path(image))
    except RuntimeError:
        # Before Python 3.13: links that lead in a circle. A record may name such.
        return str(Path(image).absolute())


def _by_name(
    files: Mapping[str, str], known: Mapping[str, Prediction], made: MadeMasks
) -> dict[str, Prediction]:
    """Return masks that bear the names of scenes whose images have none."""
    taken = {one.scene_id for one in known.values()}
    by_name: dict[str, list[Prediction]] = {}
    for one in made.predictions.values():
        if one.scene_id not in taken:
            for name in {one.scene_id, one.scene_id.rpartition("/")[2]}:
                by_name.setdefault(name, []).append(one)
    candidates = {
        scene: by_name.get(scene) or by_name.get(Path(image).stem) or []
        for scene, image in files.items()
        if scene not in known
    }
    asked = Counter(one.scene_id for several in candidates.values() for one in several)
    return {
        scene: several[0]
        for scene, several in candidates.items()
        if len(several) == 1 and asked[several[0].scene_id] == 1
    }


def score_scenes(
    scenes: Mapping[str, SceneMasks],
    pairs: ClassPairs,
    settings: ScoreSettings,
    told: Callable[[int], None],
) -> tuple[dict[str, SceneScore], dict[str, str]]:
    """Compare scenes with their labels.

    Args:
        scenes: What is compared, by name of the labelled scene.
        pairs: Classes.
        settings: What is asked for.
        told: Called with the number of scenes that are done.

    Returns:
        What was found, and why a scene could not be compared, by name of the scene.
    """
    scores, failed = {}, {}
    for number, (scene, masks) in enumerate(scenes.items(), 1):
        try:
            score = score_scene(masks, pairs, settings)
        except SceneError as error:
            failed[scene] = str(error)
            continue
        finally:
            told(number)
        if score.counts.labelled.any():
            scores[scene] = score
        else:
            failed[scene] = "it has no pixel with a label"
    return scores, failed
