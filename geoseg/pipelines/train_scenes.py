"""The scenes of a training, looked at once: by the first process, for all of them."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from geoseg.data.coarser import on_processed_grids
from geoseg.data.config import DataConfig
from geoseg.data.labelled import LabelledSource
from geoseg.data.sources import open_split
from geoseg.data.survey import Survey, survey
from geoseg.errors import OutputError
from geoseg.training.processes import is_first_process
from geoseg.training.progress import Listener
from geoseg.types import ModelSpec

_FOUND = "GEOSEG_TRAINING_SCENES"
"""Environment variable: the file in which the first process left what it found."""


@dataclass(frozen=True, slots=True)
class TrainingScenes:
    """What can be used of the scenes that a recipe names."""

    trained: Survey
    """Scenes that are learned from."""
    judged: Survey
    """Scenes that are validated on, on the grids that they are predicted on."""


def find_scenes(
    data: DataConfig,
    spec: ModelSpec,
    most: int | None,
    listener: Listener,
    processes: int = 1,
) -> TrainingScenes:
    """Look at the scenes of a training, or take over what the first process found.

    A process of a run's own would look while the first one waits for it, and where a
    file comes and goes it would find other scenes.

    Args:
        data: Where they are, and what their labels mean.
        spec: What the model will declare.
        most: How many are validated on, drawn evenly; None: all.
        listener: Hears how far it is.
        processes: Of the training.

    Raises:
        ConfigError: There are none, or none has a label.
        SceneError: One cannot be read, or has labels that mean nothing.
    """
    # Taken once: a process that outlives this run must not take it for the next one's.
    first = is_first_process(processes)
    left = None if first else os.environ.pop(_FOUND, None)
    if left is not None:
        # By our own parent, in a file that nobody else may write.
        return cast(TrainingScenes, pickle.loads(Path(left).read_bytes()))
    split = open_split(data, ("train", "validation"))
    looked = partial(listener.looked, "training")
    trained = survey(split.train, data, looked=looked)
    return TrainingScenes(
        trained, _judged(split.validation, data, spec, most, listener)
    )


def _judged(
    scenes: Sequence[LabelledSource],
    data: DataConfig,
    spec: ModelSpec,
    most: int | None,
    listener: Listener,
) -> Survey:
    """Draw the scenes that are validated on, evenly, and look at all of them.

    Now, and not when hours of training end in a wrong label. What cannot be read is
    left out of all validations, so that each is of the same scenes.
    """
    if not scenes:
        return Survey((), ())
    count = min(most or len(scenes), len(scenes))
    drawn = [scenes[number * len(scenes) // count] for number in range(count)]
    processed = on_processed_grids(drawn, spec, data.on_bad)
    looked = partial(listener.looked, "validation")
    return survey(processed, data, "validation", looked, images=True)


@contextmanager
def left_for_others(scenes: TrainingScenes, processes: int) -> Iterator[None]:
    """Leave what the first process found to those that it will start.

    Raises:
        OutputError: There is no place for temporary files.
    """
    if processes == 1 or not is_first_process(processes):
        yield
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(
                tempfile.NamedTemporaryFile(prefix="geoseg-scenes-")
            )
            pickle.dump(scenes, file)
            file.flush()
        except OSError as error:
            raise OutputError(
                f"temporary files cannot be written ({error.strerror}), by which the "
                "processes of a training know its scenes; free some space or set TMPDIR"
            ) from error
        os.environ[_FOUND] = file.name
        stack.callback(os.environ.pop, _FOUND, None)
        yield
