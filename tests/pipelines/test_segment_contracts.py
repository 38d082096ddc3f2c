"""What `segment` keeps whatever happens: exactly once, honest, never outside OUT."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from rasters import write_raster
from running import configuration, fingerprint, read_segments, smooth_image
from safetensors.torch import load_file, save_file
from stubs import clear_log, logged_loads, logged_tiles, save_stub

from geoseg.cli.main import main
from geoseg.errors import ClusterError
from geoseg.pipelines import segment, segment_run
from geoseg.pipelines.options import segment_config
from geoseg.pipelines.segment import RunReport


class Bench:
    """A folder of scenes, and a model that logs what it predicts."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder, self.scheduler = folder, scheduler
        self.log = folder / "log"
        self.model = folder / "model"
        self.save_model()

    def save_model(self, **options: Any) -> None:  # noqa: ANN401 (save_stub's)
        options = {"kind": "levels", "output_stride": 4, **options}
        save_stub(self.model, log_folder=self.log, **options)

    def scene(self, name: str, seed: int = 0, *, mark: int | None = None) -> Path:
        """Write a scene of 9 tiles."""
        image = smooth_image(150, 130, seed=seed)
        if mark is not None:
            image[0, 60, 60] = mark
        path = self.folder / "archive" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_raster(path, image)

    def run(
        self,
        scenes: list[Path] | None = None,
        out: str = "out",
        **sections: dict[str, Any],
    ) -> tuple[RunReport, int]:
        """Run the archive, or some scenes; return the report and tiles predicted."""
        clear_log(self.log)
        sections = {"cluster": {"scheduler": self.scheduler}, **sections}
        given = scenes or [self.folder / "archive"]
        config = configuration(given, self.folder / out, self.model, sections)
        return segment.run(config), sum(logged_tiles(self.log).values())


@pytest.fixture
def bench(tmp_path: Path, scheduler: str) -> Bench:
    return Bench(tmp_path, scheduler)


def read_report(bench: Bench) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((bench.folder / "out/report.json").read_text())
    return report


def test_an_unchanged_run_returns_without_a_cluster(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.scene("a")
    first, predicted = bench.run()
    assert predicted == 9

    def refuse(*_: object) -> None:
        raise AssertionError("no cluster is needed")

    monkeypatch.setattr(segment_run, "connect", refuse)
    before = (bench.folder / "out" / "a" / "item.json").stat().st_mtime_ns
    again, predicted = bench.run()
    assert (again, predicted) == (first, 0)
    assert (bench.folder / "out" / "a" / "item.json").stat().st_mtime_ns == before


def replace_scene(bench: Bench) -> None:
    path = bench.folder / "archive" / "a.tif"
    size = path.stat().st_size
    bench.scene("a", seed=5)
    assert path.stat().st_size == size


def touch_sidecar(bench: Bench) -> None:
    (bench.folder / "archive" / "a.tif.aux.xml").write_text("<PAMDataset/>")


def change_weights(bench: Bench) -> None:
    bench.save_model(num_classes=5)


def swap_weights(bench: Bench) -> None:
    """Other numbers in a file of the same name, size and time."""
    path = bench.model / "model.safetensors"
    before, weights = path.stat(), load_file(path)
    save_file({name: -w for name, w in weights.items()}, path, {"format": "pt"})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def change_mean(bench: Bench) -> None:
    bench.save_model(mean=(0.1, 0.1, 0.1))


def lose_mask(bench: Bench) -> None:
    (bench.folder / "out" / "a" / "classes.tif").unlink()


def lose_item(bench: Bench) -> None:
    (bench.folder / "out" / "a" / "item.json").unlink()


@pytest.mark.parametrize(
    "change",
    [
        *(replace_scene, touch_sidecar, lose_mask, lose_item),
        *(change_weights, swap_weights, change_mean),
    ],
)
def test_only_scenes_that_changed_are_made_again(
    bench: Bench, change: Callable[[Bench], None]
) -> None:
    bench.scene("a")
    bench.scene("b", seed=1)
    _, predicted = bench.run()
    assert predicted == 18
    change(bench)
    report, predicted = bench.run()
    assert report.ok
    model_changed = change in (change_weights, swap_weights, change_mean)
    assert predicted == (18 if model_changed else 9)
    _, predicted = bench.run()
    assert predicted == 0


@pytest.mark.parametrize(
    ("tiling", "tiles"),
    [({"window": "linear"}, 18), ({"stride": None, "overlap": 4}, 18)],
)
def test_a_changed_setting_makes_scenes_again_and_leaves_no_parts(
    bench: Bench, tiling: dict[str, Any], tiles: int
) -> None:
    bench.scene("a")
    bench.scene("b", seed=1)
    bench.run()
    _, predicted = bench.run(tiling=tiling)
    assert predicted == tiles
    _, predicted = bench.run(tiling=tiling)
    assert predicted == 0
    assert not list((bench.folder / "out" / ".geoseg" / "parts").iterdir())


def test_workers_and_talk_change_no_pixel(bench: Bench) -> None:
    bench.scene("a")
    bench.run()
    assert bench.run(cluster={"workers": 3})[1] == 0
    clear_log(bench.log)
    command = ["segment", bench.folder / "archive", "-o", bench.folder / "out", "-v"]
    command += ["--model", bench.model, "--set", "model.imports=[stubs]"]
    command += ["--stride", "48", "--workers", "1"]
    done = CliRunner().invoke(main, [*map(str, command)])
    assert done.exit_code == 0, done.output
    assert logged_tiles(bench.log) == {}


def test_the_order_of_scenes_changes_nothing(bench: Bench) -> None:
    scenes = [bench.scene(name, seed) for seed, name in enumerate("abc")]
    forward, _ = bench.run(scenes, "forward")
    backward, _ = bench.run(scenes[::-1], "backward")
    assert [r.scene_id for r in forward.results] == ["a", "b", "c"]
    assert [r.scene_id for r in backward.results] == ["c", "b", "a"]
    for one, other in zip(forward.results, backward.results[::-1], strict=True):
        assert fingerprint(Path(one.folder)) == fingerprint(Path(other.folder))


def test_broken_scenes_are_reported_and_good_ones_are_finished(bench: Bench) -> None:
    bench.save_model(fail_on=1.0)
    bench.scene("bad/model", mark=255)
    (bench.folder / "archive/bad/text.tif").write_text("not a raster")
    one_band = np.zeros((1, 90, 90), np.uint8)
    write_raster(bench.folder / "archive/bad/gray.tif", one_band)
    bench.scene("good/a")
    bench.scene("good/b", seed=1)
    report, _ = bench.run()
    assert not report.ok
    assert [r.scene_id for r in report.results] == ["good/a", "good/b"]
    reasons = {failure.scene_id: failure.reason for failure in report.failures}
    assert list(reasons) == ["bad/gray", "bad/model", "bad/text"]
    assert "--bands" in reasons["bad/gray"]
    assert "the stub was told to fail" in reasons["bad/model"]
    assert "cannot be read" in reasons["bad/text"]
    assert not any("\n" in reason for reason in reasons.values())
    written = read_report(bench)
    states = {scene["scene_id"]: scene["state"] for scene in written["scenes"]}
    good = {"good/a": "done", "good/b": "done"}
    assert states == {**dict.fromkeys(reasons, "failed"), **good}
    told = {s["scene_id"]: s["reason"] for s in written["scenes"] if s["reason"]}
    assert told == reasons
    done = [scene for scene in written["scenes"] if scene["state"] == "done"]
    assert all(scene["tiles_done"] == scene["tiles"] == 9 for scene in done)
    assert all(scene["peak_memory"] > 50 << 20 for scene in done)
    out = bench.folder / "out"
    assert {path.name for path in out.iterdir()} == {
        ".geoseg",
        "good",
        *("report.json", "report.html", "run.yaml", "model.json", "collection.json"),
    }


def test_a_run_without_a_cluster_reports_every_scene_as_failed(bench: Bench) -> None:
    bench.scene("a")
    with pytest.raises(ClusterError):
        bench.run(cluster={"scheduler": "tcp://127.0.0.1:1", "timeout": 0.5})
    written = read_report(bench)
    assert (written["state"], written["counts"]) == ("failed", {"unfinished": 1})
    assert "scheduler" in written["reason"]
    assert "run it again" in written["scenes"][0]["reason"]


def test_hostile_names_stay_in_the_run_directory(bench: Bench) -> None:
    names = [
        "..hidden",
        "'; DROP TABLE segments; --",
        'quote"d',
        "new\nline",
        "münchen",
        ".geoseg/parts",
        "report.json",
        "$(touch x)",
    ]
    for seed, name in enumerate(names):
        bench.scene(name, seed)
    report, _ = bench.run(out="deep/out")
    assert report.ok, report.failures
    assert len(report.results) == len(names)
    out = bench.folder / "deep" / "out"
    for result in report.results:
        folder = Path(result.folder)
        assert folder.resolve().is_relative_to(out.resolve())
        assert not folder.relative_to(out).parts[0].startswith(".")
        assert set(read_segments(folder).scene_id) == {result.scene_id}
        item = json.loads((folder / "item.json").read_text())
        assert item["id"] == result.scene_id
    assert [path.name for path in (bench.folder / "deep").iterdir()] == ["out"]
    assert bench.run(out="deep/out")[1] == 0


def test_the_saved_configuration_runs_again_from_any_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.scene("a")
    monkeypatch.chdir(bench.folder)
    cluster = {"cluster": {"scheduler": bench.scheduler}}
    first = segment.run(
        configuration(Path("archive"), Path("out"), Path("model"), cluster)
    )
    assert first.ok
    elsewhere = bench.folder / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    saved = segment_config(config=bench.folder / "out" / "run.yaml", options={})
    clear_log(bench.log)
    assert segment.run(saved) == dataclasses.replace(first, out=bench.folder / "out")
    assert logged_tiles(bench.log) == {}


def test_later_calls_keep_the_root_of_the_first(bench: Bench) -> None:
    bench.scene("2024/a")
    bench.scene("2025/b", seed=1)
    bench.run()
    scene = bench.folder / "archive" / "2024" / "a.tif"
    report, predicted = bench.run([scene])
    assert ([r.scene_id for r in report.results], predicted) == (["2024/a"], 0)
    report, predicted = bench.run([scene], output={"overwrite": True})
    assert ([r.scene_id for r in report.results], predicted) == (["2024/a"], 9)
    _, predicted = bench.run()
    assert predicted == 0


SCRIPT = """\
import sys
import geoseg

archive, out, model, workers = sys.argv[1:]
records = geoseg.segment(
    archive, out, model=model, stride=48, workers=int(workers),
    set=["model.imports=[stubs]", "cluster.timeout=120"],
)
print(*[record.scene_id for record in records])
"""


def start_script(bench: Bench, out: str, workers: int) -> subprocess.Popen[str]:
    """Start a plain script, without a `__main__` guard, in a session of its own."""
    script = bench.folder / "script.py"
    script.write_text(SCRIPT)
    arguments = [bench.folder / "archive", bench.folder / out, bench.model, workers]
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_plain_script_runs_scenes_on_worker_processes(bench: Bench) -> None:
    bench.save_model(seconds=0.05)
    bench.scene("a")
    bench.scene("b", seed=1)
    script = start_script(bench, "out", workers=2)
    output, errors = script.communicate(timeout=300)
    assert script.returncode == 0, errors
    assert output.split() == ["a", "b"]
    loads = logged_loads(bench.log)
    assert 1 <= len(loads) <= 2
    assert set(loads.values()) == {1}
    assert script.pid not in loads
    assert not {os.getpid()} & set(loads)


@pytest.mark.slow
def test_a_run_whose_processes_all_die_at_once_is_taken_up_again(bench: Bench) -> None:
    bench.save_model(seconds=0.1)
    # 96 tiles in 4 bands, each of which needs the one above as well.
    image = smooth_image(64 + 48 * 31, 130, seed=4)
    archive = bench.folder / "archive"
    archive.mkdir()
    write_raster(archive / "tall.tif", image)
    script = start_script(bench, "out", workers=1)
    parts = bench.folder / "out" / ".geoseg" / "parts"
    try:
        deadline = time.monotonic() + 300
        while len(list(parts.glob("*/part-*.json"))) < 2:
            assert script.poll() is None, script.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        # Client, scheduler and workers at once, as when the power fails.
        family = psutil.Process(script.pid).children(recursive=True)
        os.killpg(script.pid, signal.SIGKILL)
        for process in family:
            if process.is_running():
                process.kill()
        script.communicate()
    report, predicted = bench.run()
    assert report.results[0].tiles == 96
    assert predicted < 96
    fresh, _ = bench.run(out="fresh")
    folders = [Path(done.results[0].folder) for done in (report, fresh)]
    assert fingerprint(folders[0]) == fingerprint(folders[1])
    assert not list(parts.iterdir())
    assert not [path for path in folders[0].iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_scene_that_kills_its_worker_fails_and_the_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Give up after the first death; the default of three only takes longer.
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    bench.save_model(fail_on=1.0, fail_by="exit")
    bench.scene("deadly", mark=255)
    bench.scene("good")
    report, _ = bench.run(cluster={"workers": 1, "timeout": 120.0})
    assert [result.scene_id for result in report.results] == ["good"]
    [failure] = report.failures
    assert failure.scene_id == "deadly"
    assert "workers died 1 times in predict, probably out of memory" in failure.reason
