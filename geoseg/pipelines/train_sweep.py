"""A sweep: one training for each combination of settings, and a table of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from geoseg.config import combinations, compose, convert
from geoseg.errors import ConfigError, GeosegError, OutputError
from geoseg.io.atomic import atomic_path
from geoseg.models.registry import find_model
from geoseg.pipelines import train
from geoseg.training.checkpoints import begun_with
from geoseg.training.fit import Outcome
from geoseg.training.progress import Listener

TABLE = "sweep.csv"
"""File of the results, in the folder of the sweep."""

_MOST_NAME = 150
"""Characters of a folder's name; longer ones are cut and numbered."""


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One training of a sweep."""

    settings: tuple[str, ...]
    """What it has of its own, "key=value"."""
    config: train.TrainConfig


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How one training ended."""

    run: SweepRun
    outcome: Outcome | None
    """None if it failed."""
    error: str = ""
    """Why it failed."""

    @property
    def miou(self) -> float | None:
        """The best score on the validation scenes."""
        return None if self.outcome is None else self.outcome.best_miou


Watching = Callable[[SweepRun], AbstractContextManager[Listener]]
"""Gives the listener of one training."""


def plan_sweep(recipe: str, overrides: Sequence[str]) -> list[SweepRun]:
    """Compose and check every training of a sweep, before the first one begins.

    Each gets a folder below the recipe's `out`, named after its settings.

    Args:
        recipe: Name or path.
        overrides: Hydra overrides, of which some have several values after commas.

    Raises:
        ConfigError: Nothing varies, a combination does not fit, or one needs several
            devices.
        ModelError: There is no model to start from.
        OutputError: A folder holds a model that was not made there.
    """
    varied = combinations(overrides)
    if varied == [()]:
        raise ConfigError(
            "--multirun needs a --set with several values, such as "
            "train.learning_rate=1e-4,3e-4"
        )
    fixed = [text for text in overrides if combinations([text]) == [()]]
    runs = []
    for settings, name in zip(varied, _folder_names(varied), strict=True):
        config = convert(compose(recipe, [*fixed, *settings]), train.TrainConfig)
        if config.train.devices > 1:
            raise ConfigError(
                "a sweep trains on one device; set train.devices=1, or train one by one"
            )
        if not config.data.root.is_dir():
            raise ConfigError(
                f"data.root: {config.data.root} is no folder; set it to where the data "
                "are"
            )
        config = replace(config, out=config.out / name)
        begun = begun_with(config.out)
        train.check_model_folder(config.out, begun)
        if config.start_from is not None and not begun:
            find_model(config.start_from)
        runs.append(SweepRun(settings, config))
    return runs


def run(runs: Sequence[SweepRun], watching: Watching) -> list[SweepResult]:
    """Train one after the other; those that are finished already cost nothing.

    What fails is kept for the table, and the others go on.

    Args:
        runs: What `plan_sweep` made.
        watching: Gives the listener of each.

    Returns:
        Results in the order of `runs`; the table is in `sweep.csv`, too.

    Raises:
        OutputError: The table cannot be written.
    """
    results: list[SweepResult] = []
    for one in runs:
        with watching(one) as listener:
            try:
                outcome = train.run(one.config, listener).outcome
                results.append(SweepResult(one, outcome))
            except GeosegError as error:
                results.append(SweepResult(one, None, str(error)))
        _write_table(one.config.out.parent / TABLE, results)
    return results


def _folder_names(varied: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Name the folders: train.learning_rate=1e-4,train.seed=1."""
    seen: set[str] = set()
    for number, settings in enumerate(varied):
        name = re.sub(r"[^\w.,=+-]+", "_", ",".join(settings))
        if len(name) > _MOST_NAME or name in seen:
            name = f"{name[:_MOST_NAME]}-{number}"
        seen.add(name)
        yield name


def _write_table(path: Path, results: Sequence[SweepResult]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_rows(path, results)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free some space or set "
            "another out"
        ) from error


def _write_rows(path: Path, results: Sequence[SweepResult]) -> None:
    keys = [text.partition("=")[0] for text in results[0].run.settings]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*keys, "miou", "best_step", "steps", "error", "folder"])
        for result in results:
            values = [text.partition("=")[2] for text in result.run.settings]
            ended = result.outcome
            figures = (
                ["", "", ""]
                if ended is None
                else [ended.best_miou, ended.best_step, ended.steps]
            )
            folder = result.run.config.out.name
            writer.writerow([*values, *figures, result.error, folder])
