"""The job `geoseg evaluate`: labelled scenes and models in, figures and a page out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geoseg.clusters.config import ClusterConfig
from geoseg.config import convert
from geoseg.data.bands import contradicts, kinds_of
from geoseg.data.labelled import LabelledSource
from geoseg.errors import ConfigError, EvaluationError, OutputError
from geoseg.evaluation.markdown import markdown
from geoseg.evaluation.matching import pair_classes, per_model
from geoseg.evaluation.page import ShownChip, page
from geoseg.evaluation.pictures import draw_chip
from geoseg.evaluation.predictions import read_predictions
from geoseg.evaluation.record import dumps, record
from geoseg.evaluation.results import Evaluation, Failure, Resampling, RunResult
from geoseg.evaluation.scene import ScoreSettings
from geoseg.io.atomic import atomic_path
from geoseg.io.radiometry import RGB, colors_of
from geoseg.models.registry import find_model, import_modules, read_spec
from geoseg.pipelines import segment
from geoseg.pipelines.evaluate_masks import (
    Compared,
    MadeMasks,
    pair_masks,
    score_scenes,
)
from geoseg.pipelines.evaluate_scenes import (
    LabelledSet,
    image_files,
    open_labelled,
    readable,
)
from geoseg.pipelines.evaluate_variants import Sections, Variant, make_variants
from geoseg.pipelines.preview import bands_of
from geoseg.pipelines.segment import (
    InputConfig,
    Listener,
    ModelConfig,
    OutputConfig,
    SegmentConfig,
    TilingConfig,
)
from geoseg.types import ClassInfo, EvaluatedPart

RECORD, MARKDOWN, PAGE = "evaluation.json", "evaluation.md", "evaluation.html"
"""Files of an evaluation."""

MASKS = "masks"
"""Folder of the run directories that an evaluation makes."""


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """Everything an evaluation depends on."""

    out: Path
    """Folder of the evaluation: its files, and the run directories of its masks."""
    data: dict[str, Any]
    """Labelled scenes, `geoseg.data.config.DataConfig`; the classes may be left out."""
    run: tuple[Path, ...] = ()
    """Run directories that are evaluated as they are; none makes masks."""
    compare: tuple[str, ...] = ()
    """"key=value,value" of what masks depend on; every combination is a run."""
    part: EvaluatedPart = "auto"
    """Part of the split."""
    mapping: dict[str, str] = field(default_factory=dict)
    """Class of the model -> class of the labels, or "ignore"."""
    leave_out: tuple[str, ...] = ()
    """Names of labels that do not count."""
    scoring: ScoreSettings = field(default_factory=ScoreSettings)
    resampling: Resampling = field(default_factory=Resampling)
    model: ModelConfig = field(default_factory=ModelConfig)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    input: InputConfig = field(default_factory=InputConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    output: OutputConfig = field(default_factory=lambda: OutputConfig(polygons=False))

    def __post_init__(self) -> None:
        """Check what contradicts itself.

        Raises:
            ConfigError: Runs are given and settings to compare.
        """
        if self.run and self.compare:
            raise ConfigError(
                "run directories are taken as they are; leave out --run or --compare"
            )


class Watcher:
    """Told what an evaluation does; the command line shows it."""

    def segmenting(
        self, name: str, config: SegmentConfig
    ) -> AbstractContextManager[Listener]:
        """Masks of a run are made; what is returned is told how far it is."""
        return nullcontext(Listener())

    def comparing(self, name: str, done: int, scenes: int) -> None:
        """Some scenes of a run were compared with their labels."""

    def note(self, message: str) -> None:
        """Something that changes results and that the user may want to know."""


def run(config: EvaluateConfig, watcher: Watcher | None = None) -> Evaluation:
    """Compare masks with labels and write the report.

    Args:
        config: The resolved configuration.
        watcher: Told of progress.

    Returns:
        What was found.

    Raises:
        UsageError: The call is wrong.
        EvaluationError: No scene could be compared.
        ClusterError: There is no cluster to make masks on.
    """
    watcher = watcher or Watcher()
    base = Sections(config.model, config.tiling, _reading(config))
    variants = make_variants(base, config.compare)
    classes = _classes(config, variants)
    _check_ids(config, classes)
    labelled = open_labelled(config.data, config.part, classes[0], watcher.note)
    if not config.run:
        _told_bands(variants, labelled.sources, watcher.note)
    mappings = per_model(config.mapping, classes)
    for known, mapping in zip(classes, mappings, strict=True):
        # Refused here: masks of a model without a common class may take hours.
        pair_classes(labelled.classes, known, mapping, config.leave_out)
    # Before masks are made, which may take hours.
    labelled, failures = readable(labelled, watcher.note)
    files = image_files(labelled.sources, config.out)
    # Of what was written here nobody could change the place.
    copies = [files[one.name] for one in labelled.sources if one.path is None]
    made = list(_masks(config, variants, tuple(files.values()), copies, watcher))
    failures += [Failure(one.name, "", one.failure) for one in made if one.failure]
    compared = [
        _compare(config, labelled, files, one, mapping, watcher)
        for one, mapping in zip(made, mappings, strict=True)
        if not one.failure
    ]
    evaluation = _evaluation(config, labelled.title, compared, failures)
    pictures = [
        _pictures(result, one.made.folder)
        for result, one in zip(evaluation.runs, compared, strict=True)
    ]
    _write(config.out / RECORD, dumps(record(evaluation)))
    _write(config.out / MARKDOWN, markdown(evaluation))
    _write(config.out / PAGE, page(evaluation, pictures))
    return evaluation


def _reading(config: EvaluateConfig) -> InputConfig:
    """Return how images are read: as `data` says, where `input` says nothing."""
    names = ("bands", "scale", "nodata")
    said = {name: config.data.get(name) for name in names}
    asked = {name: getattr(config.input, name) for name in names}
    missing = {n: v for n, v in said.items() if asked[n] is None and v is not None}
    return convert({**asdict(config.input), **missing}, InputConfig)


def _told_bands(
    variants: Sequence[Variant],
    sources: Sequence[LabelledSource],
    note: Callable[[str], None],
) -> None:
    """Say where bands that were given declare other colours than a model takes."""
    chosen = {
        (variant.sections.model.path, variant.sections.input.bands)
        for variant in variants
    }
    kinds = kinds_of(sources) if any(bands for _, bands in chosen) else {}
    for path, bands in sorted(chosen, key=str):
        if bands is None:
            continue
        spec = read_spec(find_model(path))
        if len(bands) != len(spec.bands):
            continue  # Refused when masks are made.
        wanted = [tuple(name if name in RGB else "" for name in spec.bands)]
        if spec.chosen is not None:
            wanted = [colors_of(kind, spec.chosen.numbers) for kind in spec.chosen.of]
        for kind, name in kinds.items():
            shown = colors_of(kind, bands)
            if all(contradicts(shown, one) for one in wanted):
                takes = " or ".join(_listed(one) for one in wanted)
                note(
                    f"bands {', '.join(map(str, bands))} of {name} are said to be "
                    f"{_listed(shown)}, and {path} takes {takes}; see data.bands and "
                    "input.bands"
                )


def _listed(colors: Sequence[str]) -> str:
    return ", ".join(color or "unnamed" for color in colors)


def _classes(
    config: EvaluateConfig, variants: Sequence[Variant]
) -> list[tuple[ClassInfo, ...]]:
    """Return the classes of the model of each run, without loading it."""
    if config.run:
        return [
            next(iter(read_predictions(folder).values())).classes
            for folder in config.run
        ]
    known: dict[str, tuple[ClassInfo, ...]] = {}
    for model in (variant.sections.model for variant in variants):
        if model.path not in known:
            import_modules(model.imports)
            known[model.path] = read_spec(find_model(model.path)).classes
    return [known[variant.sections.model.path] for variant in variants]


def _masks(
    config: EvaluateConfig,
    variants: Sequence[Variant],
    files: tuple[str, ...],
    copies: Sequence[str],
    watcher: Watcher,
) -> Iterator[MadeMasks]:
    """Yield the masks of each run, made first where they are not."""
    for folder in config.run:
        found = read_predictions(folder)
        yield MadeMasks(str(folder), {}, folder, found, {}, found=True)
    if config.run:
        return
    for variant in variants:
        sections = variant.sections
        asked = SegmentConfig(
            scenes=files,
            out=config.out / MASKS / variant.folder,
            model=sections.model,
            tiling=sections.tiling,
            input=sections.input,
            cluster=config.cluster,
            output=config.output,
        )
        with watcher.segmenting(variant.name, asked) as listener:
            report = segment.run(asked, listener, unlocated=copies)
        assert report.record is not None
        sources = {scene.scene_id: scene.source for scene in report.record.scenes}
        yield MadeMasks(
            variant.name,
            variant.settings,
            asked.out,
            read_predictions(asked.out, [one.scene_id for one in report.results]),
            {sources[each.scene_id]: each.reason for each in report.failures},
        )


def _compare(
    config: EvaluateConfig,
    labelled: LabelledSet,
    files: Mapping[str, str],
    made: MadeMasks,
    mapping: Mapping[str, str],
    watcher: Watcher,
) -> Compared:
    pairs = pair_classes(
        labelled.classes, made.model.classes, mapping, config.leave_out
    )
    scenes, missing = pair_masks(labelled.sources, files, made)

    def told(done: int) -> None:
        watcher.comparing(made.name, done, len(scenes))

    scores, failed = score_scenes(scenes, pairs, config.scoring, told)
    return Compared(made, pairs, scenes, scores, {**missing, **failed})


def _check_ids(
    config: EvaluateConfig, classes: Sequence[tuple[ClassInfo, ...]]
) -> None:
    """Refuse models whose ids mean different classes, if labels hold such ids.

    Raises:
        ConfigError: They do.
    """
    tables = [{info.id: info.name.casefold() for info in known} for known in classes]
    first = tables[0]
    if not config.data.get("classes") and any(
        one[number] != first[number] for one in tables for number in one.keys() & first
    ):
        raise ConfigError(
            "ids of the models' classes mean different things, and labels without a "
            "class table hold ids of a model; give data.classes, with `mask` values"
        )


def _evaluation(
    config: EvaluateConfig,
    title: str,
    compared: Sequence[Compared],
    failed: Sequence[Failure],
) -> Evaluation:
    """Put runs side by side; scenes that one of them lacks count in none."""
    failures = [*failed]
    failures += [
        Failure(one.made.name, scene, reason)
        for one in compared
        for scene, reason in one.failures.items()
    ]
    left_out = {failure.scene for failure in failures}
    # Labels that cannot be used are no reason for masks that are not there.
    causes = sorted(failures, key=lambda failure: not failure.run)
    if not compared:
        cause = causes[0]
        raise EvaluationError(f"{cause.what}: {cause.reason}")
    runs = []
    for one in compared:
        common = [name for name in one.scores if name not in left_out]
        if not common:
            cause = causes[0]
            raise EvaluationError(
                f"no labelled scene could be compared; {cause.what}: {cause.reason}"
            )
        runs.append(
            RunResult(
                name=one.made.name,
                settings=one.made.settings,
                folder=_relative(one.made.folder, config.out),
                model=one.made.model.model,
                model_sha256=one.made.model.model_sha256,
                pairs=one.pairs,
                scenes={name: one.scenes[name] for name in common},
                scores={name: one.scores[name] for name in common},
                resampling=config.resampling,
                worst=config.scoring.worst,
            )
        )
    return Evaluation(title, tuple(runs), tuple(failures))


def _pictures(result: RunResult, folder: Path) -> list[ShownChip]:
    bands = bands_of(folder)
    return [
        (name, chip, draw_chip(result.scenes[name], result.pairs, chip.window, bands))
        for name, chip in result.worst_chips
    ]


def _relative(folder: Path, out: Path) -> str:
    """Return a folder as it is found from the evaluation's, which may move."""
    if folder.is_relative_to(out):
        return folder.relative_to(out).as_posix()
    return str(folder.absolute())


def _write(path: Path, text: str) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free some space or choose "
            "another -o"
        ) from error
