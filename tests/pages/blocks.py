"""Blocks of commands on our pages, and what a test does with each.

A block of a page is marked by a comment on the line before its fence:

    <!-- commands: run SCENARIO -->     each command is run, in the state that the page assumes, by that scenario
    <!-- commands: skip: REASON -->     no test runs it, because of the reason
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Languages of fences that hold commands.
SHELLS = ("console", "sh", "bash", "shell")

# Pages that are generated from the programs' definitions.
GENERATED = ("docs/cli.md", "docs/options.md")

MARK = re.compile(r"<!-- commands: (?:run (?P<scenario>[a-z-]+)|skip: (?P<reason>\S.*\S)) -->")


@dataclass
class Block:
    """A block of commands."""

    page: str
    # The line of its fence, from 1.
    line: int
    # The scenario that runs it, or else the reason why none does. A block without a mark has neither.
    scenario: str | None
    reason: str | None
    lines: list[str]

    def commands(self) -> list[str]:
        """Returns the commands: the lines after a prompt, without trailing comments, or all lines if no prompt exists.

        Behind root's prompt, a line that begins with a capital letter is a sentence.
        """
        prompted = [line[2:] for line in self.lines if re.match(r"\$ |# (?![A-Z])", line)]
        typed = [re.sub(r"\s{2,}#.*$| # .*$", "", line).strip() for line in prompted or self.lines]
        return [line for line in typed if line]


def pages(repository: Path) -> list[str]:
    """Every page that people read, by its path in the repository."""
    found = [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").glob("*.md"))]
    names = [str(path.relative_to(repository)) for path in found]
    return [name for name in names if name not in GENERATED]


def blocks(page: str, text: str) -> list[Block]:
    """The blocks of commands of a page."""
    found: list[Block] = []
    inside: list[str] | None = None
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped.startswith("```"):
            if inside is not None:
                inside.append(stripped)
            before = stripped
        elif inside is not None:
            inside = None
        else:
            inside = []
            if stripped.removeprefix("```").split(" ")[0] in SHELLS:
                mark = MARK.fullmatch(before)
                scenario = mark["scenario"] if mark else None
                reason = mark["reason"] if mark else None
                found.append(Block(page, number, scenario, reason, inside))
    return found


def blocks_of(repository: Path, page: str) -> list[Block]:
    """The blocks of commands of a page of the repository."""
    return blocks(page, (repository / page).read_text())
