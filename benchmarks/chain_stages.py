"""CPU seconds of geoseg's stages for one scene, in one process and without Dask.

python benchmarks/chain_stages.py SCENE MODEL OUT with|without
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chain_scene import STRIDE, TILE
from record import ROOT

from geoseg import finish, graph
from geoseg.inference import Predictor
from geoseg.io import vector
from geoseg.io.raster import SceneReader


class Stages:
    """Counts each thread's CPU seconds for the innermost stage that it is in."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def wrap(self, owner: Any, name: str, stage: str) -> None:  # noqa: ANN401
        """Replace a function by one that is counted; a generator step by step."""
        function = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            found = self._count(stage, lambda: function(*args, **kwargs))
            return self._steps(found, stage) if isinstance(found, Iterator) else found

        setattr(owner, name, counted)

    def _steps(self, iterator: Iterator[Any], stage: str) -> Iterator[Any]:
        end = object()
        while (item := self._count(stage, lambda: next(iterator, end))) is not end:
            yield item

    def _count(self, stage: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        stack = self._local.__dict__.setdefault("stack", [])
        stack.append(0.0)  # Seconds of the stages within.
        started = time.thread_time()
        try:
            return call()
        finally:
            seconds = time.thread_time() - started
            inner = stack.pop()
            if stack:
                stack[-1] += seconds
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds - inner


def main() -> None:
    """Segment a scene in a plain loop and print what each stage took.

    Threads that libraries start, such as the one that makes a GeoPackage's index, and
    what belongs to no stage are in `rest`.
    """
    scene, model, out, kind = sys.argv[1:]
    sys.path.insert(0, str(ROOT / "tests"))
    import stubs  # noqa: F401 (it registers the model)
    from running import configuration, load_predictor, plan_jobs

    from geoseg.finish import finish_scene
    from geoseg.graph import run_scene

    sections = {
        "output": {"confidence": kind != "without"},
        "tiling": {"stride": STRIDE, "tile_size": TILE},
    }
    [job] = plan_jobs(configuration(Path(scene), Path(out), Path(model), sections))
    predictor = load_predictor(Path(model))
    stages = Stages()
    _wrap(stages, predictor)
    before = time.process_time()
    finish_scene(job, run_scene(job, predictor))
    whole = time.process_time() - before
    rest = whole - sum(stages.seconds.values())
    print(json.dumps(stages.seconds | {"rest": rest}))


def _wrap(stages: Stages, predictor: Predictor) -> None:
    stages.wrap(SceneReader, "read", "read")
    stages.wrap(Predictor, "_stack", "model input")
    # Beside the network, this scales pixels and rounds logits.
    stages.wrap(Predictor, "_launch", "model input")
    stages.wrap(predictor.model, "forward", "model")
    stages.wrap(graph, "blend_classes", "blend")
    stages.wrap(graph, "trace_part", "trace")
    stages.wrap(graph, "_write_part", "parts")
    stages.wrap(finish, "_write_rasters", "cog")
    stages.wrap(finish, "join_parts", "trace")
    stages.wrap(finish, "write_segments", "geopackage")
    stages.wrap(vector, "_write", "geopackage")


if __name__ == "__main__":
    main()
