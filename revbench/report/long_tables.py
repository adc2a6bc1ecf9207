"""Tables too long to be read on a page: the page has their beginning; the table's files have all of it."""

from __future__ import annotations

import dataclasses

from revbench.report.document import Block, Report, Table

MOST_ROWS = 200


def shortened(report: Report) -> Report:
    """Returns the report with its tables cut to `MOST_ROWS`; the note under each says where all rows are."""

    def cut(block: Block) -> Block:
        if not isinstance(block, Table) or len(block.rows) <= MOST_ROWS:
            return block
        note = f"The first {MOST_ROWS} of {len(block.rows):,} rows; all of them are in tables/{block.name}.csv."
        breaks = [at for at in block.breaks if at < MOST_ROWS]
        return dataclasses.replace(
            block, rows=block.rows[:MOST_ROWS], breaks=breaks, notes=(note, *block.notes), see=block.see[:MOST_ROWS]
        )

    sections = [dataclasses.replace(s, blocks=[cut(block) for block in s.blocks]) for s in report.sections]
    return dataclasses.replace(report, sections=sections)
