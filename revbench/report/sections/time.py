"""Time, computation and energy of a training step."""

from __future__ import annotations

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.paper.published import RECONSTRUCTION_FLOPS_RATIO, RECONSTRUCTION_TIME_RATIO
from revbench.probes.declared import ENERGY, FLOPS_OF_STEP, PHASES, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.charts.times import time_figure
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.sections.operations import operations_cell, operations_ratio, uncounted_note
from revbench.report.sections.step_tables import strategy_table
from revbench.report.table import Column, lay_out, times, value_cell, value_column, why_unstable, with_interval, words
from revbench.units import human_seconds


def section(evidence: Evidence) -> Section | None:
    """Returns the picture, then the table of all pairs and strategies; on a GPU that of energy."""
    return Section.of("Time and computation", [time_figure(evidence), time_table(evidence), energy_table(evidence)])


def time_table(evidence: Evidence) -> Table | None:
    """Lays out seconds and operations of a step for each pair and strategy."""
    step = TIME["step_seconds"]

    def to_stored(case: Case) -> str:
        return with_interval(evidence.time_ratio(case, case.stored()))

    def operations_to_stored(case: Case) -> str:
        return times(operations_ratio(evidence, case, case.stored()))

    columns = [
        Column(step.title, lambda case: value_cell(evidence, case, step, spread=True)),
        Column("to stored", to_stored),
        *(value_column(evidence, TIME[f"{phase}_seconds"]) for phase in PHASES),
        Column(FLOPS_OF_STEP["step_flops"].title, lambda case: operations_cell(evidence, case)),
        Column("to stored", operations_to_stored),
    ]
    title = "Time and computation of a training step"
    return strategy_table(title, names.TIME, evidence, [TIME, FLOPS_OF_STEP], columns, _notes(evidence))


def _notes(evidence: Evidence) -> list[str]:
    timed = [case for case in evidence.cases(TIME) if not has_its_own_table(evidence, case)]
    notes = [
        _launches(evidence, timed),
        *_unstable(evidence, timed),
        f"Published for reconstruction: {RECONSTRUCTION_FLOPS_RATIO} × the add-multiplies, and"
        f" {RECONSTRUCTION_TIME_RATIO} × the time in the authors' own implementation (Gomez et al. 2017, section 3.2).",
    ]
    faults = [s.median for case in timed if (s := evidence.value(case, TIME["minor_faults_per_step"]))]
    if faults and not timed[0].on_gpu:
        notes.append(
            f"Allocator: malloc {timed[0].allocator}; minor page faults a step, median over launches: at most"
            f" {max(faults):,.0f}."
        )
    bound = [case for case in timed if evidence.is_launch_bound(case)]
    if bound:
        which = "; ".join(f"{network_name(case)} {strategy_of(case)}" for case in bound)
        notes.append(
            "Launch-bound (some kernel ran in less than 80 % of the step, so the host is what is timed, also in each phase):"
            f" {'all' if len(bound) == len(timed) else which}."
        )
    return notes + uncounted_note(
        evidence, [c for c in evidence.cases(FLOPS_OF_STEP) if not has_its_own_table(evidence, c)]
    )


def _launches(evidence: Evidence, timed: list[Case]) -> str:
    counts = [len(evidence.launches(case, TIME)) for case in timed]
    if max(counts, default=0) <= 1:
        of = "Median over the steps of one launch a case. To stored: with an interval of 95 % over its turns; another launch may"
        of += " differ by some percent more."
    else:
        number = str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        of = f"Median over {number} launches of each launch's median step (smallest to largest in brackets). To stored: with an"
        of += " interval of 95 % over launches and turns."
    alone = [case for case in timed if (s := evidence.value(case, TIME["cases_in_turn"])) is None or s.median < 2]
    turns = (
        "The strategies of a pair took turns in one process" if not alone else "Not all cases took turns in one process"
    )
    return f"{of} {turns}; a ratio is that of turns side by side, so that it need not be the quotient of the medians shown."


def _unstable(evidence: Evidence, timed: list[Case]) -> list[str]:
    return why_unstable(
        (f"{network_name(case)} {strategy_of(case)}", evidence.time_ratio(case, case.stored())) for case in timed
    )


def energy_table(evidence: Evidence) -> Table | None:
    """Lays out the energy of a step under each strategy, beside stored."""
    cases = evidence.cases(ENERGY)
    joules = ENERGY["joules_per_step"]

    def energy(case: Case) -> str:
        found = value_cell(evidence, case, joules)
        return found if found != MISSING else evidence.failure(case, ENERGY) or MISSING

    def meanwhile(case: Case) -> str:
        found, watts = evidence.value(case, joules), evidence.value(case, ENERGY["watts"])
        return human_seconds(found.median / watts.median) if found and watts and watts.median else MISSING

    columns = [
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy_of),
        Column(joules.title, energy),
        Column("to stored", lambda case: times(evidence.ratio(case, case.stored(), joules))),
        value_column(evidence, ENERGY["watts"]),
        Column("Step meanwhile", meanwhile),
    ]
    where = circumstances(cases[0]) if cases else ""
    notes = [
        f"{where}. NVML's counter of the whole GPU's energy, over windows of seconds; a dash where the GPU has no such counter."
        " Step meanwhile: energy over power, what a step took then; where it is longer than the step that was timed, the GPU"
        " waited for the host, and its idle power is in the energy."
    ]
    return lay_out("Energy of a training step", columns, [cases], notes, name="energy")
