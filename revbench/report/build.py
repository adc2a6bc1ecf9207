"""From run folders to a Report object."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from revbench.environment import summarise
from revbench.errors import UserError
from revbench.report import (
    chains,
    depth,
    drift,
    drift_figures,
    energy,
    limits,
    reconciliation,
    step_memory,
    steps,
    tables,
    training,
    training_figures,
)
from revbench.report.document import Block, Figure, Paragraph, Report, Section, Table
from revbench.report.evidence import Evidence
from revbench.results.runs import read_run

MOST_FIGURES = 8  # of one kind
MOST_SENTENCES = 20


def build_report(folders: Sequence[Path]) -> Report:
    """Read runs and lay out their report; one part for each environment.

    Raises:
        UserError: a folder that is no run, or a run without a row.
    """
    sections: list[Section] = []
    subtitles: list[str] = []
    for folder in folders:
        run = read_run(folder)
        if not run.rows:
            raise UserError(f"{folder} holds no rows yet; measure something first")
        ids = list(dict.fromkeys(row.environment_id for row in run.rows))
        missing = [key for key in ids if key not in run.environments]
        if missing:
            raise UserError(f"{folder}: rows name an environment {missing[0]!r} that the file does not describe")
        for key in ids:
            evidence = Evidence(run, key)
            dates = sorted(row.started for row in evidence.rows)
            where = f"{summarise(dict(evidence.environment))}; {dates[0][:16].replace('T', ' ')} UTC"
            subtitles.append(where)
            prefix = "" if len(folders) == len(ids) == 1 else f"{folder.name} · {key} · "
            sections += [Section(prefix + s.title, s.blocks) for s in _sections(evidence)]
    return Report("Stored or reconstructed activations", " | ".join(subtitles), _number_figures(sections))


def _number_figures(sections: Sequence[Section]) -> list[Section]:
    """Give each figure's file a name of its own, made of nothing that a stranger chose."""
    count = itertools.count(1)

    def named(block: Block) -> Block:
        return dataclasses.replace(block, name=f"{next(count)}-{block.name}") if isinstance(block, Figure) else block

    return [Section(section.title, [named(block) for block in section.blocks]) for section in sections]


def _leading(blocks: Iterable[Block], most: int = MOST_FIGURES, what: str = "figures") -> list[Block]:
    """The first of them, and a word if there are more: what nobody can look through belongs in tables."""
    found = list(itertools.islice(blocks, most + 1))
    if len(found) > most:
        found[most] = Paragraph(f"These are the first {most} of such {what}; the tables have all cases.")
    return found


def _sections(evidence: Evidence) -> list[Section]:
    sentences = itertools.chain(steps.findings(evidence), training.findings(evidence))
    layout: list[tuple[str, list[Block | None]]] = [
        ("In short", [*_leading(sentences, MOST_SENTENCES, "sentences")]),
        ("Memory", [steps.memory_table(evidence), *_leading(step_memory.memory_figures(evidence))]),
        (
            "What the system shows",
            [
                reconciliation.reconciliation_table(evidence),
                energy.process_table(evidence),
                *_leading(reconciliation.waterfalls(evidence)),
            ],
        ),
        ("Memory against depth", [depth.depth_figure(evidence), depth.depth_table(evidence)]),
        ("Time and computation", [steps.time_table(evidence), energy.energy_table(evidence)]),
        ("Within the same memory", [limits.limit_table(evidence)]),
        ("Libraries and PyTorch's own ways", [chains.chain_plane(evidence), chains.chain_table(evidence)]),
        (
            "Drift of the gradient",
            [
                drift.verdict_table(evidence),
                drift.drift_table(evidence),
                drift.error_table(evidence),
                *drift_figures.drift_depth_figures(evidence),
                *_leading(drift_figures.going_back_figures(evidence)),
                drift.stability_table(evidence),
                drift.determinism_table(evidence),
            ],
        ),
        (
            "Training on real images",
            [
                *_leading(training_figures.training_figures(evidence)),
                training.training_table(evidence),
                training.processes_table(evidence),
                training.equivalence_table(evidence),
                training.errors_table(evidence),
            ],
        ),
        ("Networks", [tables.table_two(evidence)]),
        ("Cases without figures", [tables.failure_table(evidence)]),
        ("Where it was measured", [tables.environment_table(evidence)]),
    ]
    found = []
    for title, blocks in layout:
        there: list[Block] = [block for block in blocks if isinstance(block, (Paragraph, Table, Figure))]
        if there:
            found.append(Section(title, there))
    return found
