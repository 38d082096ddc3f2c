"""Break each contract on purpose: every patch here must turn its test red.

A patch is a unified diff against the working tree with two lines above it:

    # contract: C1
    # test: tests/test_tiling.py::test_every_pixel_is_covered

and a third, `# rebuild: yes`, if the native library must be built for it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
LIBRARY = Path("geoseg") / "_C.abi3.so"
# Each has its own copy of the working tree and of the library.
MOST_TREES = 4
# A mutant that cannot even run proves nothing about the test.
BROKEN = ("SyntaxError", "IndentationError", "NameError", "ImportError", "ModuleNotFou")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One patch."""

    patch: Path
    """The diff."""
    contract: str
    """Contract that it breaks, "C1"."""
    test: str
    """Id of the test that must notice."""
    rebuild: bool
    """Whether the native library must be built for it."""


def read_mutant(patch: Path) -> Mutant:
    """Read a patch's two header lines."""
    text = patch.read_text()
    found = {
        key: re.search(rf"^# {key}: (\S+)$", text, re.MULTILINE)
        for key in ("contract", "test")
    }
    contract, test = found["contract"], found["test"]
    if contract is None or test is None:
        raise SystemExit(f"{patch}: needs the lines `# contract: ...`, `# test: ...`")
    rebuild = re.search(r"^# rebuild: yes$", text, re.MULTILINE) is not None
    return Mutant(patch, contract[1], test[1], rebuild)


def copy_tree(target: Path) -> None:
    """Copy the working tree, what git ignores apart, and the native operators."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # A deleted file is still in the index.
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    restore_library(target)


def restore_library(target: Path) -> None:
    """Copy the native operators, which git ignores, as they are here."""
    if (ROOT / LIBRARY).is_file():
        shutil.copy2(ROOT / LIBRARY, target / LIBRARY)


def build_library(tree: Path) -> bool:
    """Build the native operators of the copy; return whether it went well."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, check=False, capture_output=True)
    return done.returncode == 0


def apply(patch: Path, tree: Path, *options: str) -> bool:
    """Apply a patch to the copied tree; return whether it fits."""
    # Without a ceiling, git would look for a repository around the copy.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    command = ["git", "apply", *options, str(patch)]
    done = subprocess.run(
        command, cwd=tree, env=environment, check=False, capture_output=True
    )
    return done.returncode == 0


def run_tests(
    tree: Path, tests: Sequence[str], *options: str
) -> tuple[int, ET.Element]:
    """Run tests of the copy; return pytest's exit code and its junit report."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        # A patch may change a file without changing its size or its second.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--junitxml={report}", *options, *tests],
        cwd=tree,
        env=environment,
        check=False,
        capture_output=True,
    )
    root = ET.parse(report).getroot() if report.exists() else ET.Element("none")
    return done.returncode, root


def failures(report: ET.Element) -> list[str]:
    """Name the tests of a report that failed or could not run, with their messages."""
    return [
        f"{case.get('classname')}::{case.get('name')}: {found.get('message')}"
        for case in report.iter("testcase")
        for found in (*case.iter("failure"), *case.iter("error"))
    ]


def verdict(tree: Path, mutant: Mutant) -> str:
    """Say what became of a mutant: "killed", or why it is not."""
    if not apply(mutant.patch, tree):
        return "does not apply"
    try:
        if mutant.rebuild and not build_library(tree):
            return "broken: does not compile"
        code, report = run_tests(tree, [mutant.test])
    finally:
        apply(mutant.patch, tree, "--reverse")
        if mutant.rebuild:
            restore_library(tree)
    if code == 0:
        return "SURVIVED"
    if code != 1 or report.find(".//testcase/error") is not None:
        return f"broken: pytest ended with {code}, not with a failed test"
    messages = [found.get("message", "") for found in report.iter("failure")]
    broken = [message for message in messages if message.startswith(BROKEN)]
    return f"broken: {broken[0].splitlines()[0]}" if broken else "killed"


def verdicts(folder: Path, mutants: Sequence[Mutant], jobs: int) -> Iterator[str]:
    """Judge mutants side by side, each in a tree that no other has meanwhile."""
    trees = SimpleQueue[Path]()
    for number in range(jobs):
        tree = folder / str(number)
        copy_tree(tree)
        trees.put(tree)

    def judge(mutant: Mutant) -> str:
        tree = trees.get()
        try:
            return verdict(tree, mutant)
        finally:
            trees.put(tree)

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(judge, mutants)


def main() -> int:
    """Print a table of all mutants; return 1 unless every one is killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patches", type=Path, nargs="*", help="default: all")
    patches = parser.parse_args().patches or sorted(FOLDER.glob("*.patch"))
    mutants = [read_mutant(patch.resolve()) for patch in patches]
    if not mutants:
        raise SystemExit(f"no patches in {FOLDER}")
    jobs = max(1, min(MOST_TREES, len(os.sched_getaffinity(0)), len(mutants)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_tree(folder / "whole")
        # A test that fails anyway would "notice" everything.
        tests = sorted({mutant.test for mutant in mutants})
        code, report = run_tests(folder / "whole", tests, "-n", str(jobs))
        if code != 0:
            told = "\n".join(failures(report)) or f"pytest ended with {code}"
            raise SystemExit(f"tests fail without any patch:\n{told}")
        results = []
        judged = verdicts(folder, mutants, jobs)
        for mutant, found in zip(mutants, judged, strict=True):
            results.append(found)
            row = f"{mutant.contract:<5} {mutant.patch.stem:<36} {found:<16}"
            sys.stdout.write(f"{row} {mutant.test}\n")
            sys.stdout.flush()
    killed = results.count("killed")
    sys.stdout.write(f"{killed} of {len(mutants)} mutants killed\n")
    return int(killed < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
