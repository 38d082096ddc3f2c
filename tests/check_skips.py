"""Lists the skipped tests of junit reports; fails on one that nobody has allowed."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of allowed-skips.txt."""

    test: str
    """Glob of test ids, "tests/io/test_cog.py::*"."""
    reason: str
    """Glob of the skip's reason."""
    why: str
    """Why the skip is fine, for the reader."""


def read_allowed(path: Path) -> list[Allowed]:
    """Read the list; every line must say why."""
    allowed = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("|", maxsplit=2)]
        if len(parts) != 3 or not all(parts):
            message = f"{path}:{number}: expected `test glob | reason glob | why`"
            raise SystemExit(message)
        allowed.append(Allowed(*parts))
    return allowed


def skipped(report: Path) -> Iterator[tuple[str, str]]:
    """Yield the id and the reason of each skipped test of a junit report."""
    # The report was written by our own pytest run: trusted XML.
    for case in ET.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if skip is not None and skip.get("type") != "pytest.xfail":
            name, owner = case.get("name", ""), case.get("classname", "")
            # A module that skips itself has no owner and is named by its dotted path.
            test = f"{_file(owner)}::{name}" if owner else _file(name)
            reason = skip.get("message", "")
            # There the reason stands in the text instead.
            yield test, (skip.text or "") if reason == "collection skipped" else reason


def _file(classname: str) -> str:
    """Turn junit's dotted class name into the path of its test file."""
    parts = classname.split(".")
    for end in range(len(parts), 0, -1):
        path = Path(*parts[:end]).with_suffix(".py")
        if path.is_file():
            return path.as_posix()
    return classname.replace(".", "/")


def main() -> int:
    """Print every skip, return the number of those that are not allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("allowed", type=Path)
    parser.add_argument("reports", type=Path, nargs="+")
    arguments = parser.parse_args()
    allowed = read_allowed(arguments.allowed)
    refused = 0
    for report in arguments.reports:
        for test, reason in skipped(report):
            match = [
                rule.why
                for rule in allowed
                if fnmatch.fnmatchcase(test, rule.test)
                and fnmatch.fnmatchcase(reason, rule.reason)
            ]
            verdict = f"allowed: {match[0]}" if match else "NOT ALLOWED"
            sys.stdout.write(f"skipped {test} ({reason}): {verdict}\n")
            refused += not match
    sys.stdout.write(f"{refused} skips that {arguments.allowed} does not allow\n")
    return min(refused, 1)


if __name__ == "__main__":
    sys.exit(main())
