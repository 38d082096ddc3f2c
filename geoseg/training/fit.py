"""Running a training with Lightning: begun, gone on with, or found finished."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from geoseg.errors import TrainingError
from geoseg.training.checkpoints import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    Checkpoints,
    StepClock,
    foreign,
    read_checkpoint,
)
from geoseg.training.config import LoopConfig
from geoseg.training.logs import RunLog, quiet_writers
from geoseg.training.memory import check_memory
from geoseg.training.module import SegmentationModule
from geoseg.training.processes import (
    TogetherStrategy,
    ending_together,
    is_first_process,
)
from geoseg.training.validation import Validation

logger = logging.getLogger(__name__)

_NOISE = (
    "The '.*_dataloader' does not have many workers",
    "You're resuming from a checkpoint that ended before the epoch ended",
    "Found [0-9]+ module\\(s\\) in eval mode",
    ".*treespec, LeafSpec.* is deprecated",
)
"""Advice of Lightning's that does not hold here."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to; the module's average is what ships."""

    steps: int
    """Optimiser steps taken in all."""
    best_step: int | None
    """Step whose average ships; None without validation scenes: the last one."""
    best_miou: float | None
    """Its score."""


def fit(
    module: SegmentationModule,
    folder: Path,
    *,
    log: RunLog,
    validation: Validation | None = None,
    threads: int = 1,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Train to the end, from the folder's last checkpoint if there is one.

    Args:
        module: What to train; holds the average that ships afterwards.
        folder: The run folder.
        log: What is written and told.
        validation: Scores and early stopping.
        threads: Of torch, in each process.
        callbacks: More of Lightning's.

    Raises:
        ConfigError: The folder's checkpoint is not one of this run.
        TrainingError: The loss is not finite, or memory is too small.
    """
    config, last = module.config, folder / LAST
    begun = last.exists()
    steps, over = _restore(module, last, validation) if begun else (0, False)
    if not over:
        cuda = uses_cuda(config)
        if is_first_process(config.devices):
            check_memory(module, cuda=cuda)
        clock = StepClock()
        order: list[Callback] = [_Threads(threads), clock, log]
        order += [] if validation is None else [validation]
        seconds = config.checkpoint_seconds
        order += [Checkpoints(folder, seconds, config.steps, clock, validation)]
        trainer = make_trainer(config, folder, [*order, *callbacks], cuda=cuda)
        trainer._signal_connector = _NoSignals(trainer)
        with (
            _quiet(),
            quiet_writers(),
            _interruptions(),
            ending_together(trainer),
            _memory_errors(module),
        ):
            trainer.fit(module, ckpt_path=last if begun else None, weights_only=True)
        module.cpu()
        steps = trainer.global_step
    if validation is None or not (folder / BEST).exists():
        return Outcome(steps, None, None)
    best = read_checkpoint(folder / BEST, module.recipe)
    _load_weights(module, best, folder / BEST)
    step, known = best["global_step"], validation.best
    # Killed between the two files, and not the same when it was done again.
    return Outcome(steps, step, known["miou"] if step == known["step"] else None)


def uses_cuda(config: LoopConfig) -> bool:
    """Tell whether a run is on GPUs.

    Raises:
        TrainingError: It shall be, and there are none, or too few.
    """
    found = torch.cuda.device_count()
    cuda = config.accelerator == "cuda" or (config.accelerator == "auto" and found > 0)
    if cuda and found < config.devices:
        raise TrainingError(
            f"train.devices is {config.devices} on cuda, and torch sees {found}; use "
            "as many, or train.accelerator=cpu"
        )
    return cuda


def make_trainer(
    config: LoopConfig, folder: Path, callbacks: list[Callback], *, cuda: bool
) -> Trainer:
    """Build Lightning's trainer; logs, checkpoints and validation are callbacks."""
    several = config.devices > 1
    with _quiet():
        return Trainer(
            accelerator="cuda" if cuda else "cpu",
            devices=config.devices,
            strategy=TogetherStrategy() if several else "auto",
            # torch synchronises statistics on GPUs only.
            sync_batchnorm=several and cuda,
            precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
            # SLURM's, found by its variables, would take the tasks of a job for the
            # processes of one training; ours are started by Lightning.
            plugins=[AtomicCheckpointIO(), LightningEnvironment()],
            callbacks=callbacks,
            max_steps=config.steps,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


class _Threads(Callback):
    """Keeps torch's threads as configured: Lightning sets them by the CPUs."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_num_threads(self.threads)


def _restore(
    module: SegmentationModule, path: Path, validation: Validation | None
) -> tuple[int, bool]:
    """Check and load a checkpoint; return its step, and whether its run is over."""
    checkpoint = read_checkpoint(path, module.recipe)
    _load_weights(module, checkpoint, path)
    if validation is not None:
        state = checkpoint["callbacks"].get(validation.state_key)
        if state is not None:
            validation.load_state_dict(state)
    step: int = checkpoint["global_step"]
    logger.info("going on from step %d of %s", step, path)
    stopped = validation is not None and validation.stopped
    return step, stopped or step >= module.config.steps


def _load_weights(
    module: SegmentationModule, checkpoint: dict[str, Any], path: Path
) -> None:
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise foreign(path, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and advice from the user."""
    chatter = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [one.level for one in chatter]
    for one in chatter:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for one, level in zip(chatter, levels, strict=True):
            one.setLevel(level)


class _NoSignals(_SignalConnector):
    """Leaves signals as they are: Lightning asks the other processes when one comes.

    These do not hear it, since they wait for that process themselves.
    """

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


@contextmanager
def _interruptions() -> Iterator[None]:
    """Let Ctrl-C be Ctrl-C: Lightning ignores further ones and leaves the process."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _memory_errors(module: SegmentationModule) -> Iterator[None]:
    """Say how many chips to take when a GPU's memory is full all the same."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        config = module.config
        chips = config.batch_size // config.devices
        size = min(chips, config.micro_batch_size or chips)
        smaller = "set chips.size and train.final_chip_size to smaller ones"
        if size > 1:
            smaller = f"set train.micro_batch_size={size // 2}, or {smaller}"
        raise TrainingError(
            f"the GPU's memory is full with {size} chips in a forward pass; {smaller}, "
            "in another out"
        ) from error
