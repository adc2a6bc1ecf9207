"""In short: a sentence for each RevNet, of what reconstruction saved, cost and did to the gradient and to a training."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

from revbench.case import Case
from revbench.case.labels import circumstances, title_of
from revbench.probes.declared import DRIFT, MEMORY, TIME
from revbench.report.document import Paragraph, Section, leading
from revbench.report.evidence import Evidence
from revbench.report.sections.operations import operations_ratio
from revbench.report.sections.step_tables import has_its_own_table
from revbench.report.sections.training import training_sentences
from revbench.units import human_bytes, human_degrees, human_share

MOST_SENTENCES = 20


def section(evidence: Evidence) -> Section | None:
    """Returns what somebody must know who reads nothing else."""
    sentences = itertools.chain(_steps(evidence), training_sentences(evidence))
    return Section.of("In short", leading(sentences, MOST_SENTENCES, "sentences"))


def _steps(evidence: Evidence) -> Iterator[Paragraph]:
    for case in evidence.cases(MEMORY, TIME):
        if case.strategy != "reconstructed" or case.nonreversible != "kept" or has_its_own_table(case):
            continue
        if parts := [*_costs(evidence, case), *_gradient(evidence, case)]:
            yield Paragraph(f"{title_of(case.model)} reconstructed ({circumstances(case)}) {'; '.join(parts)}.")


def _costs(evidence: Evidence, case: Case) -> Iterator[str]:
    twin = case.stored()
    ours, theirs = (evidence.value(c, MEMORY["activation_peak_bytes"]) for c in (case, twin))
    if ours and theirs and ours.median:
        yield (
            f"needs {human_bytes(ours.median)} above the steady state at its peak where stored needs"
            f" {human_bytes(theirs.median)} ({theirs.median / ours.median:.1f} × less)"
        )
    if (time := evidence.time_ratio(case, twin)) is not None and not time.unstable:
        yield f"takes {time} the time of a step"
    if (flops := operations_ratio(evidence, case, twin)) is not None:
        yield f"{flops:.2f} × the floating-point operations"


def _gradient(evidence: Evidence, case: Case) -> Iterator[str]:
    angles = evidence.samples(case, DRIFT["angle_degrees"])
    stored = evidence.samples(case, DRIFT["stored_angle_degrees"])
    stored = stored or evidence.samples(case.stored(), DRIFT["angle_degrees"])
    if angles and stored:
        yield (
            f"its {case.dtype} gradient is {human_degrees(statistics.median(angles))} from the float64 one"
            f" (stored: {human_degrees(statistics.median(stored))})"
        )
    if seen := evidence.samples(case, DRIFT["error_over_noise"]):
        yield f"that is at most {human_share(max(seen))} of what one batch's gradient differs from another's"
    if rounding := evidence.samples(case, DRIFT["smooth_amplification"]):
        yield f"flipped ReLU units aside it has {statistics.median(rounding):.2f} × the rounding error of stored"
