"""What the system shows: why it is another number than the tensors', each gap by name."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import paired
from revbench.probes import Metric
from revbench.probes.declared import LEAK, MEMORY, NVML
from revbench.probes.reconciliation import GPU_CHAIN, LEVELS
from revbench.report.charts.waterfall import waterfalls
from revbench.report.document import MISSING, Section, Table, leading
from revbench.report.evidence import Evidence
from revbench.report.memory_chain import chain_of, reconciled_cases
from revbench.report.table import Column, lay_out, value_column, words
from revbench.units import human_bytes


def section(evidence: Evidence) -> Section | None:
    """Returns the chain of numbers, the process through NVML, and a waterfall of each RevNet."""
    blocks = [reconciliation_table(evidence), process_table(evidence), *leading(waterfalls(evidence))]
    return Section.of("What the system shows", blocks, folded=True)


def reconciliation_table(evidence: Evidence) -> Table | None:
    """Returns live tensors, each gap, and what the system shows."""
    cases = reconciled_cases(evidence)
    if not cases:
        return None
    chain = chain_of(cases[0])
    numbers = [value_column(evidence, MEMORY[chain[0].below], LEVELS[chain[0].below])]
    for gap in chain:
        numbers.append(value_column(evidence, MEMORY[gap.name], f"+ {gap.head}"))
        numbers.append(value_column(evidence, MEMORY[gap.above], LEVELS[gap.above]))
    columns = [
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy_of),
        *numbers,
    ]
    meant = "; ".join(f"{gap.head}: {gap.words}" for gap in chain if gap.words != gap.head)
    notes = [f"Peaks of a fresh process; a gap is the difference of its neighbours. {meant[:1].upper()}{meant[1:]}."]
    if chain is GPU_CHAIN:
        retries, ooms = (sum(_all(evidence, cases, MEMORY[n])) for n in ("allocation_retries", "allocator_ooms"))
        notes.append(
            "nvidia-smi shows what the process has reserved and its context, not the tensors: after the first step the"
            " allocator keeps the peak, so a saving shows there only in a process that never stored the activations."
            f" Retries of the allocator: {retries:.0f}; allocations that failed: {ooms:.0f}."
        )
    notes += _leaks(evidence)
    groups = paired(c for c in cases if chain_of(c) is chain)
    return lay_out("From live tensors to what the system shows", columns, groups, notes)


def _leaks(evidence: Evidence) -> list[str]:
    """Returns what the tensors alive at the end of a step grow by."""
    said = []
    for case in evidence.cases(LEAK):
        names = ("leak_bytes_per_step", "leak_low_bytes_per_step", "leak_high_bytes_per_step", "steps")
        slope, low, high, steps = (evidence.value(case, LEAK[name]) for name in names)
        if slope and low and high and steps:
            interval = f"{human_bytes(low.median)} to {human_bytes(high.median)}, 95 %, {steps.median:.0f} steps"
            said.append(f"{network_name(case)} {strategy_of(case)} {human_bytes(slope.median)} ({interval})")
    return [f"Growth of what is alive at the end of a step, a step: {'; '.join(said)}."] if said else []


def _all(evidence: Evidence, cases: Sequence[Case], metric: Metric) -> list[float]:
    return [found.high for case in cases if (found := evidence.value(case, metric)) is not None]


def process_table(evidence: Evidence) -> Table | None:
    """Returns NVML's number for the process while it trains, and what asking for it costs."""
    cases = [case for case in evidence.cases(NVML) if evidence.launches(case, NVML)]
    if not cases:
        return None

    def slowdown(case: Case) -> str:
        found = evidence.value(case, NVML["sampler_slowdown"])
        return f"{found.median:+.2%}" if found else MISSING

    sizes = ("nvml_process_peak_bytes", "nvml_device_before_bytes", "nvml_device_after_bytes")
    columns = [
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy_of),
        *(value_column(evidence, NVML[name]) for name in sizes),
        Column(NVML["sampler_slowdown"].title, slowdown),
    ]
    interval = evidence.value(cases[0], NVML["sampler_interval_seconds"])
    every = f", read every {interval.median * 1e3:.0f} ms" if interval else ""
    notes = [f"{circumstances(cases[0])}. High-water mark of a fresh process{every}; the step's slow-down by reading."]
    return lay_out("The process through NVML", columns, [cases], notes)
