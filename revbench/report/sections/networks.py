"""Networks: Table 2 of the paper."""

from __future__ import annotations

import itertools

from revbench.case.labels import title_of
from revbench.paper.catalogue import CATALOGUE, Architecture
from revbench.paper.published import GOMEZ_2017, TABLE_2
from revbench.probes.declared import PARAMETERS
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, words


def section(evidence: Evidence) -> Section | None:
    """Returns the table, if parameters were counted."""
    return Section.of("Networks", [table_two(evidence)], folded=True)


def table_two(evidence: Evidence) -> Table | None:
    """Returns our counts of parameters beside the paper's own."""
    counts = {(c.model, c.num_classes): evidence.value(c, PARAMETERS["parameters"]) for c in evidence.cases(PARAMETERS)}
    if not counts:
        return None
    published = {row.model: row.parameters_millions for row in TABLE_2}

    def classes(a: Architecture) -> list[int]:
        return [a.num_classes, 100] if a.stem == "cifar" else [a.num_classes]

    def ours(a: Architecture) -> str:
        found = [counts.get((a.name, None if i == 0 else number)) for i, number in enumerate(classes(a))]
        return " / ".join(f"{s.median:,.0f}" if s else MISSING for s in found)

    def theirs(a: Architecture) -> str:
        return " / ".join(published.get(a.name, {}).get(number, MISSING) for number in classes(a))

    columns = [
        words("Network", lambda a: title_of(a.name)),
        words("Data", lambda a: "ImageNet" if a.stem == "imagenet" else "CIFAR"),
        words("Bottleneck", lambda a: "yes" if a.bottleneck else "no"),
        words("Units", lambda a: "-".join(map(str, a.units))),
        words("Channels", lambda a: "-".join(map(str, (a.stem_channels, *a.channels)))),
        Column("Parameters, ours", ours),
        Column("Parameters, paper, M", theirs),
    ]
    notes = [
        f"Paper: Table 2 of {GOMEZ_2017}; 10 / 100 classes for CIFAR. Its RevNet-104 is printed as 45.2 M, while the"
        " rules of its text and the authors' code give our count. Networks with a dash are from the authors' code"
        " (github.com/renmengye/revnet-public), not from Table 2.",
    ]
    by_data = [list(group) for _, group in itertools.groupby(CATALOGUE.values(), key=lambda a: a.stem)]
    return lay_out("Networks and parameters (the paper's Table 2)", columns, by_data, notes, name="networks")
