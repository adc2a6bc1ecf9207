"""From run folders to a Report object."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from revbench.errors import UserError
from revbench.report.document import Block, Figure, Report, Section
from revbench.report.evidence import Evidence
from revbench.report.sections import all_sections
from revbench.results.runs import read_run
from revbench.runner.environment import summarise
from revbench.runner.registry import OURS, registry


def build_report(folders: Sequence[Path]) -> Report:
    """Read runs and lay out their report; one part for each environment.

    Raises:
        UserError: a folder that is no run, or a run without a row.
    """
    sections: list[Section] = []
    subtitles: list[str] = []
    notes: list[str] = []
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
            devices = {row.case.device for row in evidence.rows}
            where = f"{summarise(evidence.environment, devices)}; {dates[0][:16].replace('T', ' ')} UTC"
            subtitles.append(where)
            prefix = "" if len(folders) == len(ids) == 1 else f"{folder.name} · {key} · "
            found, problems = all_sections(evidence)
            sections += [Section(prefix + s.title, s.blocks) for s in found]
            notes += problems
            if any(row.probe not in OURS for row in evidence.rows):
                notes += registry().problems
    title, subtitle = "Stored or reconstructed activations", " | ".join(subtitles)
    return Report(title, subtitle, _number_figures(sections), list(dict.fromkeys(notes)))


def _number_figures(sections: Sequence[Section]) -> list[Section]:
    """Give each figure's file a name of its own, made of nothing that a stranger chose."""
    count = itertools.count(1)

    def named(block: Block) -> Block:
        return dataclasses.replace(block, name=f"{next(count)}-{block.name}") if isinstance(block, Figure) else block

    return [Section(section.title, [named(block) for block in section.blocks]) for section in sections]
