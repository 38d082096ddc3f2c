"""The command line in tests, with a run of `segment` that is only recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from click.testing import CliRunner, Result

from geoseg.cli.main import main
from geoseg.finish import ClassSummary, SceneResult
from geoseg.pipelines.segment import Listener, RunReport, SegmentConfig
from geoseg.reporting.record import RunRecord
from geoseg.stream import SceneFailure


@dataclass
class RecordedRun:
    """Stands for `geoseg.pipelines.segment.run`."""

    results: tuple[SceneResult, ...] = ()
    failures: tuple[SceneFailure, ...] = ()
    notes: tuple[str, ...] = ()
    record: RunRecord | None = None
    configs: list[SegmentConfig] = field(default_factory=list)

    def __call__(
        self, config: SegmentConfig, listener: Listener | None = None
    ) -> RunReport:
        self.configs.append(config)
        assert listener is not None
        for note in self.notes:
            listener.note(note)
        for failure in self.failures:
            listener.scene_done(failure)
        for result in self.results:
            listener.scene_done(result)
        return RunReport(config.out, self.results, self.failures, self.record)

    @property
    def config(self) -> SegmentConfig:
        """The configuration of the only run."""
        (config,) = self.configs
        return config


def geoseg(*arguments: object) -> Result:
    """Call the command line; stdout and stderr are apart."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments: object, code: int = 2) -> str:
    """Call `vectorize`, which must refuse in one line, and return that."""
    result = geoseg("vectorize", *arguments)
    assert result.exit_code == code, result.stderr
    assert result.stderr.startswith("Error: "), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    return result.stderr


def scene_result(
    scene_id: str, pixels: tuple[int, ...], area_m2: float | None = 1.0
) -> SceneResult:
    """Return a finished scene.

    Args:
        scene_id: Its id.
        pixels: Pixels by class; classes are called class 1, class 2, ...
        area_m2: Square metres of a pixel, None if unknown.
    """
    classes = tuple(
        ClassSummary(
            id=i,
            name=f"class {i}",
            pixels=count,
            polygons=2 * i,
            area_m2=None if area_m2 is None else count * area_m2,
        )
        for i, count in enumerate(pixels, start=1)
    )
    return SceneResult(scene_id, f"out/{scene_id}", "key", 4, 0, classes)
