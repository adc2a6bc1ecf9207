"""Predictions as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.prediction.allocator import caveat_here
from revbench.prediction.depth import depth_of
from revbench.prediction.estimates import Estimates
from revbench.prediction.fit import Fit
from revbench.prediction.predictor import Prediction
from revbench.probes.declared import PHASES
from revbench.terminal import plain
from revbench.units import human_bytes, human_flops

Fits = Mapping[Case, Fit]


def show(estimates: Estimates) -> None:
    """Print predictions, one table a model, and below what they leave out."""
    found, batches, depths = estimates.predictions, estimates.batches, estimates.depths
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file has no width to fit into
    for model in dict.fromkeys(p.case.model for p in found):
        ours = [p for p in found if p.case.model == model]
        console.print(_table(ours, batches, depths))
    for case, problem in estimates.problems.items():
        console.print(plain(f"{network_name(case)} {strategy_of(case)}: {problem}"), markup=False)
    console.print(_notes(found, [*batches.values(), *depths.values()]), markup=False)


def _table(found: Sequence[Prediction], batches: Fits, depths: Fits) -> Table:
    first = found[0]
    step = first.step
    title = (
        f"{escape(plain(network_name(first.case)))}, {circumstances(first.case)}, {first.case.optimizer}\n"
        f"{first.parameters:,} parameters {human_bytes(step.parameter_bytes)} with buffers, gradients"
        f" {human_bytes(step.gradient_bytes)}, optimizer state {human_bytes(step.optimizer_state_bytes)}, batch"
        f" {human_bytes(step.batch_bytes)}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column("strategy")
    fitted = [name for name, fits in (("largest batch", batches), ("deepest", depths)) if fits]
    for name in ("peak", "of stored", *fitted, "operations", "activations kept", *PHASES):
        table.add_column(name, justify="right", no_wrap=name not in ("activations kept", *fitted))
    table.add_column("where the peak stands", max_width=34)
    stored = next((p.step.peak_bytes for p in found if p.case.strategy == "stored"), None)
    for p in found:
        phase = max(PHASES, key=lambda name: p.step.phase_peak_bytes[name])
        fits = [_value(batches[p.case], lambda fit: f"{fit.value:,}")] if batches else []
        fits += [_value(depths[p.case], lambda fit: depth_of(fit.case) if fit.case else "")] if depths else []
        cells = [
            strategy_of(p.case), human_bytes(p.step.peak_bytes), f"{p.step.peak_bytes / stored:.2f}" if stored else "–", *fits,
            ("≥ " if p.uncounted_operators else "") + human_flops(p.step_flops), human_bytes(p.step.kept_bytes),
            *(human_bytes(p.step.phase_peak_bytes[name]) for name in PHASES),
            escape(plain(", ".join(dict.fromkeys((phase, p.step.phase_peak_places[phase]))))),
        ]  # fmt: skip
        table.add_row(*cells)
    return table


def _value(fit: Fit, words: Callable[[Fit], str]) -> str:
    if fit.case is None:
        return f"none: {human_bytes(fit.peak_bytes)} at least"
    said = words(fit)
    return said if fit.checked else f"{said} (extrapolated)"


def _notes(found: Sequence[Prediction], fits: Sequence[Fit]) -> str:
    cuda = any(p.case.on_gpu for p in found)
    left_out = (
        "the CUDA context, workspaces of cuDNN and cuBLAS, what the allocator can't use for fragmentation"
        if cuda
        else "what a kernel takes and gives back inside one operation, Python and its libraries"
    )
    text = f"Predicted without running. Left out: {left_out}."
    if cuda and (said := caveat_here()):
        text += f"\n{said}"
    if uncounted := next((p.uncounted_operators for p in found if p.uncounted_operators), None):
        text += f"\n≥: operators that multiply and for which there is no formula are not counted: {uncounted}."
    if fits:
        fit = fits[0]
        text += (
            f"\nFilled: {human_bytes(fit.usable_bytes)} of {human_bytes(fit.limit_bytes)}; the rest is the margin for what is"
            " left out."
        )
    return text
