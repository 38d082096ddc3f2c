"""What a run writes about itself, and what stays the same whenever it runs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from runs import TALL, PlainRuns, plain_runs

from geoseg import __version__
from geoseg.archive import RunDirectory
from geoseg.errors import FileOutputError, OutputError
from geoseg.io.raster import Scene
from geoseg.pipelines import segment_report
from geoseg.pipelines.segment import Listener
from geoseg.reporting.record import RunRecord, report_lines


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlainRuns:
    return plain_runs(tmp_path, monkeypatch)


def report_of(runs: PlainRuns) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((runs.out / "report.json").read_text())
    return report


def states(report: dict[str, Any]) -> dict[str, str]:
    return {scene["scene_id"]: scene["state"] for scene in report["scenes"]}


class Reader(Listener):
    """Reads the report at each event."""

    def __init__(self, runs: PlainRuns) -> None:
        self.runs = runs
        self.seen: list[dict[str, Any]] = []

    def planned(self, scene_id: str, scene: Scene, tiles: int) -> None:
        """A scene was opened."""
        self.seen.append(report_of(self.runs))

    def tiles_done(self, scene_id: str, tiles: int) -> None:
        """Tiles are done."""
        self.seen.append(report_of(self.runs))


def test_a_report_is_there_from_the_start_and_follows_the_run(
    runs: PlainRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_report, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(segment_report, "RENEW_SHARE", 0)
    runs.scene("a", height=TALL)
    runs.scene("b", seed=1)
    reader = Reader(runs)
    assert runs.run(listener=reader).ok
    first = reader.seen[0]
    assert first["state"] == "running"
    assert states(first) == {"a": "waiting", "b": "waiting"}
    during = [seen["scenes"][0] for seen in reader.seen]
    assert {"running"} < {scene["state"] for scene in during}
    done = [scene["tiles_done"] for scene in during if scene["state"] == "running"]
    assert done == sorted(done)
    assert 0 < done[-1] < 32
    last = report_of(runs)
    assert states(last) == {"a": "done", "b": "done"}
    assert last["counts"] == {"done": 2}
    assert last["tiles"] == {"all": 33, "done": 33, "skipped": 0}
    assert last["state"] == "done"
    tall = last["scenes"][0]
    assert (tall["tiles"], tall["parts"], len(tall["key"])) == (32, 2, 64)
    assert sum(entry["pixels"] for entry in tall["classes"]) == TALL * 100
    assert tall["started"] <= tall["ended"] <= last["ended"]
    assert set(last["versions"]) > {"geoseg", "torch", "python", "dask"}
    assert min(last["peak_memory"].values()) > 50 << 20


def test_the_report_is_renewed_now_and_then_only(
    runs: PlainRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def counted(record: RunRecord) -> Iterator[str]:
        written.append(record.state)
        yield from report_lines(record)

    monkeypatch.setattr(segment_report, "report_lines", counted)
    monkeypatch.setattr(segment_report, "RENEW_SECONDS", 1e6)
    for seed in range(4):
        runs.scene(f"s{seed}", seed=seed)
    runs.run()
    assert len(written) == 3, "at the start, with the first work, and at the end"


@pytest.mark.parametrize(
    ("stop", "state", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", None),
        (RuntimeError("the\nroof fell"), "failed", "the roof fell"),
    ],
)
def test_a_run_that_is_cut_short_says_what_is_left(
    runs: PlainRuns, stop: BaseException, state: str, reason: str | None
) -> None:
    runs.scene("a", seed=1)
    runs.scene("b", height=TALL)
    runs.scene("c", seed=2)
    runs.stop_after, runs.stop_by = 2, stop
    with pytest.raises(type(stop)):
        runs.run()
    report = report_of(runs)
    assert (report["state"], report["reason"]) == (state, reason)
    assert states(report) == {"a": "done", "b": "unfinished", "c": "unfinished"}
    assert report["scenes"][1]["tiles_done"] > 0
    assert "run it again" in report["scenes"][2]["reason"]
    assert [link.target for link in collection(runs).get_links("item")] == [
        "./a/item.json"
    ]
    runs.stop_after = None
    assert runs.run().ok
    report = report_of(runs)
    assert states(report) == {"a": "reused", "b": "done", "c": "done"}
    assert report["scenes"][1]["tiles_found"] > 0
    assert len(list(collection(runs).get_links("item"))) == 3


def collection(runs: PlainRuns) -> pystac.Collection:
    return pystac.Collection.from_dict(
        json.loads((runs.out / "collection.json").read_text()), preserve_dict=True
    )


def test_a_collection_holds_scenes_of_all_calls_and_none_that_are_gone(
    runs: PlainRuns,
) -> None:
    one, two = runs.scene("2024/a"), runs.scene("2025/b", seed=1)
    runs.run(one, two)
    runs.scene("2026/c", seed=2)
    shutil.rmtree(runs.out / "2025")
    (runs.out / "foreign").mkdir()
    (runs.out / "foreign" / "item.json").write_text('{"id": "foreign"}')
    runs.run(*(runs.folder / "archive").rglob("c.tif"))
    read = pystac.Collection.from_file(str(runs.out / "collection.json"))
    items = list(read.get_items())
    assert [item.id for item in items] == ["2024/a", "2026/c"]
    for item in items:
        assert item.collection_id == read.id == "out"
        assert item.get_root() is read
        links = {link.rel: link for link in item.links}
        for rel in ("root", "parent", "collection"):
            file = links[rel].get_absolute_href()
            assert Path(str(file)).resolve() == runs.out / "collection.json"
        model = pystac.Item.from_file(str(links["derived_from"].get_absolute_href()))
        assert model.properties["title"] == str(runs.folder / "model")
        assert model.properties["mlm:name"] == "model"
        sha256 = item.properties["geoseg:model_sha256"]
        assert sha256 == model.properties["geoseg:sha256"]
        source = Path(item.assets["source"].href)
        assert source.is_relative_to(runs.folder / "archive")


def contents(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_no_clock_time_is_in_any_output_but_the_report(runs: PlainRuns) -> None:
    runs.scene("x/a", seed=1)
    runs.scene("b", seed=2)
    runs.run()
    first, second = contents(runs.out), time.time() // 1
    shutil.rmtree(runs.out)
    while time.time() // 1 == second:  # Outputs may hold seconds at the finest.
        time.sleep(0.02)
    runs.run()
    again = contents(runs.out)
    assert set(first) == set(again)
    differing = {name for name in first if first[name] != again[name]}
    assert differing == {"report.json", "report.html"}


@pytest.mark.parametrize("broken", [False, True])
def test_a_report_that_cannot_be_written_hides_no_failure(
    runs: PlainRuns, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    runs.scene("a")
    if broken:
        (runs.folder / "archive" / "b.tif").write_text("no raster")
    reader = Notes()
    write = RunDirectory.write

    def full(self: RunDirectory, name: str, text: str | Iterable[str]) -> None:
        if name == "report.json" and (self.path / "a" / "item.json").exists():
            raise OutputError("report.json cannot be written (disk full)")
        write(self, name, text)

    monkeypatch.setattr(RunDirectory, "write", full)
    if broken:
        report = runs.run(listener=reader)
        assert [failure.scene_id for failure in report.failures] == ["b"]
        assert reader.said == ["report.json cannot be written (disk full)"]
    else:
        with pytest.raises(FileOutputError, match="disk full"):
            runs.run(listener=reader)


class Notes(Listener):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        """Keep a note."""
        self.said.append(message)


def test_a_run_directory_of_another_version_goes_on(
    runs: PlainRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Notes()
    runs.scene("a")
    runs.run()
    (runs.out / ".geoseg" / "version").write_text("99.1\n")
    (runs.out / "report.json").write_text('{"format": 7, "versions": {"geoseg": "99"}}')
    assert runs.run(listener=reader).ok
    assert reader.said == [
        f"{runs.out} was last written by geoseg 99.1; this is "
        f"{__version__}, which makes its scenes again"
    ]
    assert report_of(runs)["format"] == 1


LOST = {
    "the work folder": [".geoseg"],
    "the root": [".geoseg/root"],
    "the lock and the version": [".geoseg/lock", ".geoseg/version"],
    "the report": ["report.json", "report.html"],
    "an item": ["x/a/item.json"],
    "a mask": ["x/a/classes.tif"],
    "a scene": ["x"],
    "all of the run": ["run.yaml", "model.json", "collection.json", "report.json"],
}


@pytest.mark.parametrize("what", LOST)
def test_what_somebody_deleted_is_made_again(runs: PlainRuns, what: str) -> None:
    runs.scene("x/a", seed=1)
    runs.scene("y", height=TALL, seed=2)
    runs.stop_after, runs.stop_by = 2, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        runs.run()
    runs.stop_after = None
    for name in LOST[what]:
        path = runs.out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    # One scene is enough to know the root by: of `x/a` alone it would be another.
    if what == "the root":
        assert [r.scene_id for r in runs.run(runs.folder / "archive/x/a.tif").results]
    report = runs.run()
    assert report.ok
    assert [result.scene_id for result in report.results] == ["x/a", "y"]
    assert set(contents(runs.out)) == {
        *("report.json", "report.html", "run.yaml", "model.json", "collection.json"),
        *(f".geoseg/{name}" for name in ("lock", "root", "version")),
        *(
            f"{scene}/{name}"
            for scene in ("x/a", "y")
            for name in (
                *("classes.tif", "classes.tif.aux.xml", "confidence.tif"),
                *("classes.qml", "confidence.qml", "segments.gpkg", "item.json"),
            )
        ),
    }
