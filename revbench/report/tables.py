"""Tables of networks, training, failures and the machine."""

from __future__ import annotations

from revbench import paper
from revbench.models.catalogue import CATALOGUE
from revbench.report.document import MISSING, Table
from revbench.report.evidence import Evidence
from revbench.titles import title_of
from revbench.units import human_bytes


def table_two(evidence: Evidence) -> Table | None:
    """Table 2 of the paper, our counts beside its own."""
    counts = {
        (c.model, c.num_classes): evidence.value(c, "parameters", "parameters") for c in evidence.cases("parameters")
    }
    if not counts:
        return None
    published = {row.model: row for row in paper.TABLE_2}
    rows = []
    for name, a in CATALOGUE.items():
        printed = published.get(name)
        both = [(None, a.num_classes)] + ([(100, 100)] if a.stem == "cifar" else [])
        ours = [counts.get((name, key)) for key, _ in both]
        theirs = [printed.parameters_millions.get(classes, MISSING) if printed else MISSING for _, classes in both]
        rows.append(
            [
                title_of(name), "ImageNet" if a.stem == "imagenet" else "CIFAR", "yes" if a.bottleneck else "no",
                "-".join(map(str, a.units)), "-".join(map(str, (a.stem_channels, *a.channels))),
                " / ".join(f"{s.median:,.0f}" if s else MISSING for s in ours),
                " / ".join(theirs),
            ]
        )  # fmt: skip
    columns = ("Network", "Data", "Bottleneck", "Units", "Channels", "Parameters, ours", "Parameters, paper, M")
    notes = [
        f"Paper: Table 2 of {paper.GOMEZ_2017}; 10 / 100 classes for CIFAR. Its RevNet-104 is printed as 45.2 M, while the"
        " rules of its text and the authors' code give our count. Networks with a dash are from the authors' code"
        " (github.com/renmengye/revnet-public), not from Table 2.",
    ]
    breaks = [i for i, row in enumerate(rows) if i and row[1] != rows[i - 1][1]]
    return Table("Networks and parameters (Table 2)", columns, rows, 5, notes, breaks)


def failure_table(evidence: Evidence) -> Table | None:
    """The rows without figures, and why."""
    bad = [row for row in evidence.rows if not row.ok]
    if not bad:
        return None
    launches: dict[tuple[str, str, str, str], list[int]] = {}
    for row in bad:
        launches.setdefault((row.probe, row.case.id, row.status, row.message or MISSING), []).append(row.repeat)
    rows = [[probe, case, ", ".join(map(str, of)), status, why] for (probe, case, status, why), of in launches.items()]
    return Table("Cases without figures", ("Probe", "Case", "Launches", "Status", "Why"), rows, 5)


def environment_table(evidence: Evidence) -> Table:
    """The machine and its software."""
    e = evidence.environment
    rows = [
        ["Environment", str(e.get("environment_id", MISSING))],
        [
            "CPU",
            f"{e['cpu']['model']}, {e['cpu']['usable_cores']} of {e['cpu']['logical_cores']} cores, {e['cpu']['capability']}",
        ],
        ["Memory", human_bytes(e["memory_bytes"])],
    ]
    for a in e["accelerators"]:
        rows.append(["Accelerator", f"{a['name']}, {human_bytes(a['memory_bytes'])}, driver {a['driver']}"])
    if not e["accelerators"]:
        rows.append(["Accelerator", "none"])
    packages = ", ".join(f"{name} {version}" for name, version in e["packages"].items() if version)
    rows += [["System", str(e["system"])], ["Software", f"Python {e['python']}, {packages}"]]
    rows.append(["PyTorch threads", str(e["torch"]["threads"])])
    return Table("Hardware and software", ("What", "Found"), rows, 2)
