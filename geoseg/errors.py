"""Every exception and warning that geoseg raises; the command line prints one line.

A message says what was wrong with the value, then what to do about it.
"""

from __future__ import annotations

from typing import Any


class GeosegError(Exception):
    """Root of all geoseg errors."""


class UsageError(GeosegError, ValueError):
    """The call itself is wrong: nothing was started. The command line exits with 2."""


class ConfigError(UsageError):
    """A configuration has an unknown key, a wrong type or a value out of range."""


class TilingError(UsageError):
    """A tile size or stride does not fit the model or each other."""


class ModelError(UsageError):
    """A model is unknown, incomplete, or not one that segments."""


class ExplainError(UsageError):
    """What is to be explained does not exist: a layer, head, query, place or kind."""


class OutputError(UsageError):
    """The output folder cannot be used: it is a file, foreign, or not writable."""


class FileOutputError(GeosegError, OSError):
    """A file cannot be written whole: its disk is full or gone. Nothing is left."""


class OutsideRootError(UsageError):
    """A scene lies outside the folder that scene ids are relative to."""


class SceneError(GeosegError):
    """One scene cannot be processed; the others go on. Exit code 1."""


class SceneAccessError(SceneError):
    """A disk or a network failed on a scene. That may pass: its task is tried again."""


class RadiometryError(SceneError, ValueError):
    """A scene has a dtype or a number of bands that the model does not declare."""


class BlendingError(GeosegError, ValueError):
    """Logits are not finite, or their shape does not fit the tile grid."""


class VectorizeError(GeosegError, ValueError):
    """A class mask or its traced parts cannot be turned into polygons."""


class OperatorError(GeosegError, ImportError):
    """The native operators are asked for by name and cannot be had."""


class ClusterError(GeosegError):
    """The Dask scheduler does not answer, or no worker can run the model."""


class TrainingError(GeosegError):
    """A training run cannot go on; its last good checkpoint stays."""


class AgreedError(TrainingError):
    """A process after the first ends with the others; the first one tells why."""


class SegmentationError(GeosegError):
    """Some scenes failed; the others are finished. Only `geoseg.segment` raises it."""

    def __init__(self, message: str, report: Any) -> None:  # noqa: ANN401 (below)
        super().__init__(message)
        self.report = report
        """`geoseg.pipelines.segment.RunReport`, whose type lies in a higher layer."""


class EvaluationError(GeosegError):
    """No labelled scene could be compared with a mask."""


class GeosegWarning(UserWarning):
    """Something that changes results and that the user may want to know."""


class UnlocatedWarning(GeosegWarning):
    """A scene has no place on the Earth."""
