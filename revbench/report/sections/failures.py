"""What could not be measured: the rows that are not ok, and why."""

from __future__ import annotations

from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, words


def section(evidence: Evidence) -> Section | None:
    """Returns a table, if there are any."""
    return Section.of("What could not be measured", [failure_table(evidence)])


def failure_table(evidence: Evidence) -> Table | None:
    """Returns a line for each probe, case and reason, the launches together."""
    launches: dict[tuple[str, str, str, str], list[int]] = {}
    for row in evidence.rows:
        if not row.ok:
            key = row.probe, row.case.id, row.status, row.message or MISSING
            launches.setdefault(key, []).append(row.repeat)
    columns: list[Column[tuple[str, str, str, str]]] = [
        words("Probe", lambda key: key[0]),
        words("Case", lambda key: key[1]),
        words("Launches", lambda key: ", ".join(map(str, launches[key]))),
        words("Status", lambda key: key[2]),
        words("Why", lambda key: key[3]),
    ]
    return lay_out("Each probe and case without a value, and why", columns, [list(launches)], name="failures")
