"""Tables too long to be read on a page: the page has their beginning, a file beside it all of them."""

from __future__ import annotations

import csv
import dataclasses
import io
import re

from revbench.report.document import Block, Report, Table

MOST_ROWS = 200


def shortened(report: Report) -> tuple[Report, dict[str, str]]:
    """Returns the report with its tables cut to `MOST_ROWS`, and the whole of those that were cut as CSV, by the files' names."""
    files: dict[str, str] = {}

    def cut(block: Block) -> Block:
        if not isinstance(block, Table) or len(block.rows) <= MOST_ROWS:
            return block
        name = f"{len(files) + 1}-{_slug(block.title)}.csv"
        files[name] = _csv(block)
        note = f"The first {MOST_ROWS} of {len(block.rows):,} rows; all of them are in tables/{name}."
        breaks = [at for at in block.breaks if at < MOST_ROWS]
        return dataclasses.replace(block, rows=block.rows[:MOST_ROWS], breaks=breaks, notes=(note, *block.notes))

    sections = [dataclasses.replace(s, blocks=[cut(block) for block in s.blocks]) for s in report.sections]
    return dataclasses.replace(report, sections=sections), files


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_harmless, table.columns))
    writer.writerows(map(_harmless, row) for row in table.rows)
    return out.getvalue()


def _harmless(cell: str) -> str:
    """Returns a cell that no spreadsheet takes for a formula."""
    number = re.fullmatch(r"[+-]?\d[\d.,]*(e[+-]?\d+)?( ?[^\W\d_]+| ?[%×°])?", cell)
    return f"'{cell}" if re.match(r"[=+@\t\r-]", cell) and number is None else cell


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-")
