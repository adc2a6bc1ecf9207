"""Memory of a training step: bytes by phase, and over the step."""

from __future__ import annotations

from revbench.case import Case
from revbench.probes.declared import MEMORY, PHASES
from revbench.report.charts.memory_timeline import memory_figures
from revbench.report.document import Section, Table, leading
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.sections.step_tables import strategy_table
from revbench.report.table import Column, times, value_column


def section(evidence: Evidence) -> Section | None:
    """Returns the table of all pairs and strategies, then a picture of each pair."""
    return Section.of("Memory", [memory_table(evidence), *leading(memory_figures(evidence))])


def memory_table(evidence: Evidence) -> Table | None:
    """Lays out bytes by phase for each pair and strategy."""
    activations = MEMORY["activation_peak_bytes"]

    def to_stored(case: Case) -> str:
        return times(evidence.ratio(case, case.stored(), activations))

    on_gpu = any(case.on_gpu for case in evidence.cases(MEMORY))
    process = ("nvml_process_bytes", "reserved_peak_bytes") if on_gpu else ("rss_peak_bytes",)
    columns = [
        *(value_column(evidence, MEMORY[f"{phase}_peak_bytes"]) for phase in PHASES),
        value_column(evidence, MEMORY["steady_bytes"]),
        value_column(evidence, activations),
        Column("to stored", to_stored),
        *(value_column(evidence, MEMORY[name]) for name in process),
    ]
    notes = [
        "Peak of live tensors in each phase of a step. Steady: parameters, buffers, optimizer state and batch. Above steady:"
        " the highest peak less the steady state, so activations, gradients and temporaries. To stored: this over"
        " stored's, both above the steady state.",
        f"{'NVML process: what NVML says of' if on_gpu else 'RSS: the high-water mark of'} a fresh worker, with interpreter and"
        " libraries.",
    ]
    return strategy_table("Peak memory of a training step", names.MEMORY, evidence, [MEMORY], columns, notes)
