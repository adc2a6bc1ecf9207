"""Why: what blocks do to an error, and whether identical steps repeat."""

from __future__ import annotations

import dataclasses
import statistics
from typing import NamedTuple

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.numerics.part_table import PartTable
from revbench.paper.couplings import parse_coupling
from revbench.probes.declared import DETERMINISM, DRIFT, LIPSCHITZ
from revbench.report.document import MISSING, Table
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.table import Column, lay_out, words
from revbench.results.schema import Row
from revbench.units import human_share

_FIRST_FUNCTION = "trunk.0.f."  # of a network of the catalogue, which alone has a coupling by its case
_LOST = 1e-2  # of the activations' norm: beyond it a network computes the gradient of another input


def stability_table(evidence: Evidence) -> Table | None:
    """Returns what each block's functions do to errors, and the reconstruction error predicted beside the measured."""

    def f(case: Case) -> str:
        return evidence.failure(case, LIPSCHITZ) or _with_largest(evidence, case, "lipschitz_f")

    columns = [
        words("Network", lambda case: network_name(case)),
        words("Arithmetic", lambda case: case.arithmetic.name),
        Column("Lipschitz F", f),
        Column("G", lambda case: _with_largest(evidence, case, "lipschitz_g")),
        Column("inverse", lambda case: _with_largest(evidence, case, "lipschitz_inverse")),
        Column(LIPSCHITZ["inverse_condition"].title, lambda case: _with_largest(evidence, case, "inverse_condition")),
        Column(LIPSCHITZ["predicted_activation_error"].title, lambda case: _exponent(_predicted(evidence, case))),
        Column("Measured", lambda case: _exponent(_measured(evidence, case))),
        Column("over it", lambda case: _over(_measured(evidence, case), _predicted(evidence, case))),
        Column(LIPSCHITZ["bounded_activation_error"].title, lambda case: _exponent(_bounded(evidence, case))),
        Column(DRIFT["activation_growth_per_block"].title, lambda case: _growth(evidence, case)),
        Column(DRIFT["breakdown_block"].title, lambda case: _breakdown(evidence, case)),
    ]
    notes = [
        "Local Lipschitz constants by power iteration on Jacobian-vector products: median over blocks (largest). Inverse: of"
        " the map from a block's output to its input; condition: of that inverse, how many times a relative error may grow"
        " through the block. Predicted: the relative error of the reconstructed activations of the worst block, from errors as"
        " rounding makes them, pushed back through the derivative of each inverse; worst case: if each takes the direction that"
        " grows most. Measured: the median over draws. Growth: the factor a block that fits the longest run of blocks. Breaks"
        " down: the first block on the way back whose activations are off by a tenth.",
    ]
    cases = evidence.cases(LIPSCHITZ)
    notes += [_loses(evidence, case) for case in cases if (_worst_error(evidence, case) or 0.0) > _LOST]
    notes += filter(None, (_mended(evidence, case) for case in evidence.cases(DRIFT)))
    return lay_out("Why: what blocks do to an error", columns, [cases], notes, name=names.CAUSES)


def _worst_error(evidence: Evidence, case: Case) -> float | None:
    measured = _measured(evidence, case)
    return _predicted(evidence, case) if measured is None else measured


def _loses(evidence: Evidence, case: Case) -> str:
    """Says of a case that its way back is ill-conditioned, and what mends it."""
    error, coupling = _worst_error(evidence, case), parse_coupling(case.coupling)
    why = f" Its inverse divides by {coupling.number:g} at each function." if coupling.name == "momentum" else ""
    if coupling.forgets:
        why += f" Keeping what its first function is given ({_keeping(case).coupling}) mends the gradient of that one."
    return (
        f"{network_name(case)} ({case.arithmetic.name}) loses its activations on the way back: they are off by up to"
        f" {error:.1g} of their norm.{why} Finer arithmetic, fewer blocks, or stored activations mend that."
    )


def _keeping(case: Case) -> Case:
    """Returns the same with a coupling that keeps what its first function is given."""
    return case.replace(coupling=str(dataclasses.replace(parse_coupling(case.coupling), forgets=False)))


def _mended(evidence: Evidence, case: Case) -> str | None:
    """Says of a coupling that forgets what its first function is given what keeping that mends, if both were measured."""
    if not parse_coupling(case.coupling).forgets:
        return None
    keeping = _keeping(case)
    without, within = _first_errors(evidence, case), _first_errors(evidence, keeping)
    if not without or not within:
        return None
    kept, forgotten = statistics.median(within), statistics.median(without)
    ratio = f" ({forgotten / kept:.2g} ×)" if kept > 0 else ""
    return (
        f"{network_name(keeping)} ({case.arithmetic.name}) keeps what its first function is given, which is the furthest on the"
        f" way back. Measured: the gradient of that function is off by {human_share(kept)} with it and {human_share(forgotten)}"
        f" without{ratio}, medians over its tensors."
    )


def _first_errors(evidence: Evidence, case: Case) -> list[float]:
    """Returns the whole error of the gradient of each tensor of the first function, in each launch."""
    return [
        error
        for row in evidence.launches(case, DRIFT)
        for name, error in PartTable(evidence.series_of(row)).lines("tensor", "relative_error")
        if str(name).startswith(_FIRST_FUNCTION) and isinstance(error, (int, float))
    ]


def _with_largest(evidence: Evidence, case: Case, name: str) -> str:
    middle, most = (evidence.value(case, LIPSCHITZ[f"{name}{end}"]) for end in ("", "_largest"))
    return f"{middle.median:.1f} ({most.median:.1f})" if middle and most else MISSING


def _predicted(evidence: Evidence, case: Case) -> float | None:
    found = evidence.value(case, LIPSCHITZ["predicted_activation_error"])
    return found.median if found else None


def _bounded(evidence: Evidence, case: Case) -> float | None:
    found = evidence.value(case, LIPSCHITZ["bounded_activation_error"])
    return found.median if found else None


def _measured(evidence: Evidence, case: Case) -> float | None:
    found = evidence.samples(case, DRIFT["activation_error"])
    return statistics.median(found) if found else None


def _over(measured: float | None, predicted: float | None) -> str:
    return f"{measured / predicted:.2g}" if measured is not None and predicted else MISSING


def _exponent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1e}"


def _growth(evidence: Evidence, case: Case) -> str:
    found = evidence.value(case, DRIFT["activation_growth_per_block"])
    return f"{found.median:.2f} ×" if found else MISSING


def _breakdown(evidence: Evidence, case: Case) -> str:
    if not evidence.launches(case, DRIFT):
        return MISSING
    block = evidence.word(case, DRIFT["breakdown_block"])
    return f"block {block.rpartition('.')[2]}" if block else "nowhere"


class _Repeated(NamedTuple):
    """A case whose steps were repeated: the worst launch, or how it failed."""

    case: Case
    row: Row | None
    failure: str | None


def determinism_table(evidence: Evidence) -> Table | None:
    """Tells whether identical steps give identical bits."""
    lines = []
    for case in evidence.cases(DETERMINISM):
        launches = sorted(evidence.launches(case, DETERMINISM), key=lambda row: row.number("identical") or 0)
        lines += [_Repeated(case, row, None) for row in launches[:1]]
        if failure := evidence.failure(case, DETERMINISM):
            lines.append(_Repeated(case, None, failure))

    def metric(line: _Repeated, name: str) -> str:
        return MISSING if line.row is None else str(line.row.metrics.get(DETERMINISM[name].name, MISSING))

    def bits(line: _Repeated) -> str:
        if line.row is None:
            return line.failure or MISSING
        where = line.row.metrics.get(DETERMINISM["first_difference"].name)
        return f"part at the {where}" if where else "equal"

    def gradients(line: _Repeated) -> str:
        return MISSING if line.row is None else f"{metric(line, 'differing_gradients')} of {metric(line, 'gradients')}"

    columns = [
        words("Network", lambda line: network_name(line.case)),
        words("Strategy", lambda line: strategy_of(line.case)),
        words("Case", lambda line: circumstances(line.case)),
        words(DETERMINISM["runs"].title, lambda line: metric(line, "runs")),
        words(DETERMINISM["first_difference"].title, bits),
        Column("Gradients that differ", gradients),
    ]
    notes = ["The same step from the same weights, batch and random numbers, compared bit for bit with the first."]
    return lay_out("Do identical steps repeat?", columns, [lines], notes, name="determinism")
