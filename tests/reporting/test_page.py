"""The page of a run: complete, bounded, and safe whatever names are in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from geoseg.reporting import page
from geoseg.reporting.page import page_pieces
from geoseg.reporting.record import ClassAmount, RunRecord, SceneRecord, SceneState

HOSTILE = '"><script>alert(1)</script><img src=https://evil.example/x.png>&amp;'


class Reader(HTMLParser):
    """Collects text, tags and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def record_of(*states: SceneState, name: str = "s") -> RunRecord:
    classes = (ClassAmount(1, name, 30, 2, 1.2e6), ClassAmount(2, "b", 10, 1, 4e5))
    scenes = [
        SceneRecord(
            f"{name}{number}",
            "source",
            state=state,
            reason=f"{name} broke" if state == "failed" else None,
            tiles=4,
            tiles_done=4,
            tiles_skipped=1,
            classes=classes if state == "done" else (),
        )
        for number, state in enumerate(states)
    ]
    colors = [{"id": 1, "name": name, "color": [1, 2, 255]}]
    return RunRecord(
        state="failed",
        started="2026-01-01T00:00:00Z",
        model={"name": name, "classes": colors},
        scenes=scenes,
    )


def test_names_are_text_and_nothing_is_loaded() -> None:
    record = record_of("done", "failed", name=HOSTILE)
    record.reason, record.versions = HOSTILE, {HOSTILE: HOSTILE}
    pictures = {f"{HOSTILE}0": "data:image/png;base64,AAAA"}
    read = Reader("".join(page_pieces(record, HOSTILE, pictures)))
    assert read.text.count("<script>alert(1)</script>") >= 6
    assert "script" not in read.tags
    assert read.links == ["data:image/png;base64,AAAA"]


def test_states_reasons_and_areas_are_there_with_failures_first() -> None:
    text = "".join(page_pieces(record_of("done", "failed", "reused"), "my run", {}))
    read = Reader(text)
    for words in ("my run", "2 of 3", "1.60 km²", "s broke", "12 of 12", "75.0%"):
        assert words in read.text, words
    rows = re.findall(r"<td class=id>(s\d)", text)
    assert rows == ["s1", "s0", "s2"]
    assert "width:75.000%;background:#0102ff" in text


def test_a_large_run_has_a_bounded_page() -> None:
    states: list[SceneState] = ["done"] * (page.MOST_SCENES + 5)
    states[-1] = "failed"
    text = "".join(page_pieces(record_of(*states), "run", {}))
    assert text.count("<td class=id>") == page.MOST_SCENES
    assert "s broke" in text
    assert "and 5 more, all of them in report.json" in text
