"""Speed against depth within the same memory: what is said of each depth, and what stands in table and picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from revbench.case import Case
from revbench.report.document import Figure, Paragraph, Report, Section, Table
from revbench.results.schema import Row
from tests.report.reports import report_of, timed_row
from tests.results.rows import make_row

LEAD = Case(model="revgpt-1m", batch_size=1, sequence_length=64, memory_limit_bytes=24 << 20)


def fit(case: Case, size: int) -> Row:
    return make_row(case=case, probe="fit", metrics={"largest_batch_size": size}, samples={})


def rows_of(depth: int, *found: tuple[str, str, int, float]) -> list[Row]:
    """What was found of a depth: model, strategy, the largest batch and the time of its step; no time where none fits."""
    rows = []
    for model, strategy, size, seconds in found:
        case = LEAD.replace(model=model, strategy=strategy, depth=depth)
        rows.append(fit(case, size))
        if size:
            rows += [
                timed_row(case.replace(batch_size=size), seconds * s, repeat=i)
                for i, s in enumerate((0.99, 1, 1.01), 1)
            ]
    return rows


def of(tmp_path: Path, *rows: Row) -> tuple[Report, Section]:
    report = report_of(tmp_path, *rows)
    return report, next(s for s in report.sections if s.title == "Depth within the same memory")


def test_each_depth_has_its_answer(tmp_path: Path) -> None:
    """32 sequences in 0.1 s against 8 in 0.05 s are twice as many tokens a second; of one speed nothing is told apart."""
    _, section = of(
        tmp_path,
        *rows_of(4, ("revgpt-1m", "stored", 8, 0.05), ("revgpt-1m", "reconstructed", 32, 0.4)),
        *rows_of(8, ("revgpt-1m", "stored", 8, 0.05), ("revgpt-1m", "reconstructed", 32, 0.1)),
        *rows_of(16, ("revgpt-1m", "stored", 8, 0.05), ("revgpt-1m", "reconstructed", 32, 0.2)),
        *rows_of(32, ("revgpt-1m", "stored", 0, 0.0), ("revgpt-1m", "reconstructed", 4, 0.2)),
    )
    (said,) = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert said == (
        "RevGPT-1M within 24.0 MiB, each with the largest batch that fits, reconstructed against stored: faster at 8 blocks;"
        " slower at 4 blocks; not told apart at 16 blocks; stored does not fit at 32 blocks."
    )


def test_that_it_is_faster_may_be_sure_where_by_how_much_is_not(tmp_path: Path) -> None:
    """Launches that scatter by a fifth agree that 6 times is faster, and not that 1.1 times is."""

    def scattered(depth: int, seconds: float) -> list[Row]:
        rows = []
        for strategy, size, step in (("stored", 8, 0.05), ("reconstructed", 32, seconds)):
            case = LEAD.replace(strategy=strategy, depth=depth)
            rows.append(fit(case, size))
            scatter = (0.8, 1.0, 1.25) if strategy == "reconstructed" else (1.0,) * 3
            rows += [timed_row(case.replace(batch_size=size), step * s, repeat=i) for i, s in enumerate(scatter, 1)]
        return rows

    _, section = of(tmp_path, *scattered(4, 0.03), *scattered(8, 0.18), *scattered(16, 1.2))
    (said,) = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert said.endswith(
        "faster at 4 blocks; slower at 16 blocks; not told apart at 8 blocks. By how much is not settled where the table says"
        " unstable."
    )


def test_table_and_picture(tmp_path: Path) -> None:
    report, section = of(
        tmp_path,
        *(
            row
            for depth in (4, 8)
            for row in rows_of(
                depth,
                ("gpt-1m", "stored", 8, 0.04),
                ("revgpt-1m", "stored", 8, 0.05),
                ("revgpt-1m", "reconstructed", 32, 0.1),
            )
        ),
    )
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.columns == ("Limit", "Network", "Strategy", "Depth", "Batch", "Step", "Items a second", "to stored")
    rows = {(row[1], row[2], row[3]): row for row in table.rows}
    assert rows["RevGPT-1M", "reconstructed", "8"][4] == "32"
    assert rows["RevGPT-1M", "reconstructed", "8"][6] == "20,480 tokens"
    assert rows["RevGPT-1M", "reconstructed", "8"][7].startswith("2.00 ×")
    assert rows["GPT-1M", "stored", "4"][7] == "1.00 ×"
    (figure,) = [block for block in section.blocks if isinstance(block, Figure)]
    assert "RevGPT-1M reconstructed, 8 blocks, batch 32: 2.00 ×" in figure.alternative
    assert "GPT-1M stored, 4 blocks, batch 8: 1.25 ×" in figure.alternative
    assert figure.svg.count("<title>") == 6
    titles = [s.title for s in report.sections]
    assert "Within the same memory" not in titles  # these have a section of their own
    assert "Memory" not in titles


def test_limits_of_one_depth_take_no_panel_and_those_left_out_are_told(tmp_path: Path) -> None:
    limits = {24: (4,), 25: (4, 8), 26: (4,), 27: (4, 8), 28: (4, 8)}
    rows = [
        dataclasses.replace(row, case=row.case.replace(memory_limit_bytes=limit << 20))
        for limit, depths in limits.items()
        for depth in depths
        for row in rows_of(depth, ("revgpt-1m", "stored", 8, 0.05), ("revgpt-1m", "reconstructed", 32, 0.1))
    ]
    _, section = of(tmp_path, *rows)
    (figure,) = [block for block in section.blocks if isinstance(block, Figure)]
    assert figure.svg.count("<title>") == 2 * 2 * 2  # two limits, two depths and two lines of each
    assert figure.notes[0].endswith("The first 2 of 3 are drawn; the table has all.")


def test_one_depth_is_no_curve(tmp_path: Path) -> None:
    _, section = of(tmp_path, *rows_of(4, ("revgpt-1m", "stored", 8, 0.05), ("revgpt-1m", "reconstructed", 32, 0.1)))
    assert not [block for block in section.blocks if isinstance(block, Figure)]
