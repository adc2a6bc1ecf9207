"""Networks: Table 2 of the paper."""

from __future__ import annotations

import itertools

from revbench.case import Case
from revbench.case.labels import title_of
from revbench.paper.published import GOMEZ_2017, TABLE_2
from revbench.paper.residual import RESIDUAL, ResidualArchitecture
from revbench.paper.transformers import TRANSFORMERS, TransformerArchitecture
from revbench.probes.declared import PARAMETERS
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, value_column, words


def section(evidence: Evidence) -> Section | None:
    """Returns the tables, if parameters were counted."""
    return Section.of("Networks", [table_two(evidence), transformers_table(evidence)], folded=True)


def table_two(evidence: Evidence) -> Table | None:
    """Returns our counts of parameters beside the paper's own."""
    counts = {(c.model, c.num_classes): evidence.value(c, PARAMETERS["parameters"]) for c in evidence.cases(PARAMETERS)}
    if not any(model in RESIDUAL for model, _ in counts):
        return None
    published = {row.model: row.parameters_millions for row in TABLE_2}

    def classes(a: ResidualArchitecture) -> list[int]:
        return [a.num_classes, 100] if a.stem == "cifar" else [a.num_classes]

    def ours(a: ResidualArchitecture) -> str:
        found = [counts.get((a.name, None if i == 0 else number)) for i, number in enumerate(classes(a))]
        return " / ".join(f"{s.median:,.0f}" if s else MISSING for s in found)

    def theirs(a: ResidualArchitecture) -> str:
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
    by_data = [list(group) for _, group in itertools.groupby(RESIDUAL.values(), key=lambda a: a.stem)]
    return lay_out("Networks and parameters (the paper's Table 2)", columns, by_data, notes, name="networks")


def transformers_table(evidence: Evidence) -> Table | None:
    """Returns our counts of transformers' parameters beside those by closed form."""
    cases = [case for case in evidence.cases(PARAMETERS) if case.model in TRANSFORMERS]

    def of(case: Case) -> TransformerArchitecture:
        return TRANSFORMERS[case.model]

    columns = [
        words("Network", lambda case: of(case).title),
        Column("Blocks", lambda case: str(of(case).blocks)),
        Column("Width", lambda case: str(of(case).width)),
        Column("Heads", lambda case: str(of(case).heads)),
        Column("Elements", lambda case: f"{of(case).tokens:,}"),
        value_column(evidence, PARAMETERS["parameters"], "Parameters, counted"),
        Column("by closed form", lambda case: f"{of(case).parameters:,}"),
    ]
    notes = [
        "Elements: tokens of a sequence, or patches of an image. A reversible network and its pair have the same parameters: its"
        " two streams are of the full width, F is a block's attention and G its MLP."
    ]
    return lay_out("Transformers and parameters", columns, [cases], notes, name="transformers")
