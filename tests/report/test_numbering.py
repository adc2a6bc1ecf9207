"""Numbers in reading order, names that stay."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from revbench.report.document import Figure, Paragraph, Report, Section, Table
from revbench.report.numbering import numbered


def table(title: str, name: str = "", see: tuple[str, ...] = ()) -> Table:
    return Table(title, ("a",), [["1"]], name=name, see=see)


def blocks(sections: list[Section]) -> list[Table | Figure]:
    return [b for s in numbered(sections) for b in s.blocks if isinstance(b, (Table, Figure))]


def test_tables_and_figures_count_apart() -> None:
    found = blocks([
        Section("A", [table("One"), Figure("Two", "two", "<svg/>", ""), Paragraph("words")]), Section("B", [table("Three")]),
    ])  # fmt: skip
    assert [b.label for b in found] == ["Table 1", "Figure 1", "Table 2"]
    assert [b.name for b in found] == ["one", "two", "three"]


def test_a_part_has_names_of_its_own_and_refers_to_its_own() -> None:
    sections = [
        Section("A", [table("Claims", "claims", ("time",)), table("Time", "time")], part=part) for part in ("H100", "2 cores")
    ]  # fmt: skip
    found = blocks(sections)
    assert [b.name for b in found] == ["h100-claims", "h100-time", "2-cores-claims", "2-cores-time"]
    assert [b.see for b in found if isinstance(b, Table) and b.see] == [["h100-time"], ["2-cores-time"]]


def test_what_is_not_there_is_not_to_be_seen() -> None:
    (found,) = blocks([Section("A", [table("Claims", "claims", ("nowhere",))])])
    assert isinstance(found, Table)
    assert found.see == ()


@given(st.lists(st.text(max_size=80), max_size=6))
def test_names_are_unlike_and_harmless_whatever_titles_are(titles: list[str]) -> None:
    found = blocks([Section("A", [table(title) for title in titles])])
    names = [b.name for b in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9-]{1,60}", name) for name in names)
    assert set(Report("", "", numbered([Section("A", [table(t) for t in titles])])).labels) == set(names)
