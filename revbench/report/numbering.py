"""What tables and figures are called: a number in reading order, and a name that stays the same from run to run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from revbench.report.document import LONGEST_NAME, Block, Figure, Section, Table, name_of


def numbered(sections: Sequence[Section]) -> list[Section]:
    """Gives every table and figure its number and a name that no other has.

    A name is that of the block, or made of a table's title; in a report of several machines that of the machine's part comes
    before it. Nothing of it is what a stranger chose, but for letters, digits and hyphens. Where several are alike the later
    ones have a number behind it.
    """
    tables, figures = itertools.count(1), itertools.count(1)
    taken = {"main"}  # an id of the page; its others begin with a hyphen
    renamed: dict[tuple[str, str], str] = {}

    def labelled(block: Block, part: str) -> Block:
        if not isinstance(block, (Table, Figure)):
            return block
        own = block.name or name_of(block.title)
        name = _free(f"{name_of(part)}-{own}" if part else own, taken)
        renamed.setdefault((part, own), name)
        label = f"Table {next(tables)}" if isinstance(block, Table) else f"Figure {next(figures)}"
        return dataclasses.replace(block, name=name, label=label)

    found = [dataclasses.replace(s, blocks=[labelled(block, s.part) for block in s.blocks]) for s in sections]
    return [dataclasses.replace(s, blocks=list(_with_references(s, renamed))) for s in found]


def _free(name: str, taken: set[str]) -> str:
    candidates = (f"{name[: LONGEST_NAME - len(end)].rstrip('-')}{end}" for end in _endings())
    free = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(free)
    return free


def _endings() -> Iterator[str]:
    yield ""
    yield from (f"-{i}" for i in itertools.count(2))


def _with_references(section: Section, renamed: dict[tuple[str, str], str]) -> Iterator[Block]:
    """Yields the blocks of a section; what is to be seen goes by its new name, and what is not in the report is not to be
    seen."""
    for block in section.blocks:
        if isinstance(block, Table) and block.see:
            see = [renamed.get((section.part, name), "") for name in block.see]
            yield dataclasses.replace(block, see=see if any(see) else ())
        else:
            yield block
