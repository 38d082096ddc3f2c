"""What the README tells people to type is there, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from geoseg.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]


def code_lines() -> list[str]:
    """Return the lines of indented code blocks, without their comments."""
    lines = re.findall(r"^    (\S.*)$", README, re.MULTILINE)
    return [line.split(" # ")[0].split("#")[0].strip() for line in lines]


def test_every_command_and_option_exists() -> None:
    calls = [line for line in code_lines() if line.startswith("geoseg ")]
    assert len(calls) >= 6
    for call in calls:
        _, name, *arguments = shlex.split(call)
        command = main.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        given = {word for word in arguments if word.startswith("-")}
        assert given <= known, call
        # Parsed as the command line would: a missing value or a wrong choice raises.
        command.make_context(name, list(arguments), resilient_parsing=False)


def test_the_two_commands_of_the_set_up_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for line in code_lines() if line.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_subcommand_is_shown() -> None:
    for name in main.commands:
        assert f"geoseg {name}" in README or name == "train"
    assert isinstance(main, click.Group)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if not target.startswith(("http:", "https:", "#")):
            assert (path.parent / target.split("#")[0]).exists(), target
