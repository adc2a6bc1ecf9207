"""What was measured of each published claim, and whether that confirms it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import network_name, strategy_of
from revbench.case.pairs import group_of, is_ordinary
from revbench.compare.ratios import Ratio
from revbench.numerics.statistics import summarise_draws
from revbench.paper.published import (
    MEMCNN_KEPT_MEGABYTES,
    MEMCNN_TRAINING_MINUTES,
)
from revbench.paper.residual import ResidualArchitecture
from revbench.probes import Probe
from revbench.probes.declared import DRIFT, FLOPS_OF_STEP, LIPSCHITZ, MEMORY, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.charts.depth import family_name, fit_growth, peaks_by_depth
from revbench.report.drift_cases import verdict_of
from revbench.report.evidence import Evidence
from revbench.report.sections.equivalence import (
    DIFFERENT,
    SAME,
    against_resnet,
    differences,
    equivalence,
    trained_both_ways,
)
from revbench.report.sections.operations import operations_ratio
from revbench.training.declared import TRAINING
from revbench.units import human_bytes, human_degrees

OPERATIONS = (1.25, 1.36)  # what is about a third more
SAVING, COST = 1 / 3.5, 2.2  # what is about four times less, and about twice
PAPER_TIME = (1.5, 2.0)
PREDICTED_WITHIN = 4.0
PUBLISHED_WITHIN = 1.1
KEPT_WITHIN = 1.25  # of bytes: which tensors are kept differs between engines
FAR_ABOVE = 2.0


@dataclass(frozen=True)
class Observation:
    """What was measured of a claim, of one network.

    Attributes:
        words: the numbers.
        holds: whether the claim does; None if they bear no verdict.
        case: the network; None if it is several.
    """

    words: str
    holds: bool | None
    case: Case | None = None


def _reconstructed(evidence: Evidence, *probes: Probe) -> list[Case]:
    """Returns the networks; where there is none our own ways to back-propagate the chains by which libraries are compared."""
    found = [
        case for case in evidence.cases(*probes)
        if case.strategy == "reconstructed" and not (case.certify or case.compile or case.kept_half_blocks)
    ]  # fmt: skip
    return [case for case in found if not has_its_own_table(evidence, case)] or [c for c in found if _is_our_own_way(c)]


def _is_of_the_paper(case: Case) -> bool:
    """Tells whether a case is of a residual network, of which the claim was made, and of no chain or transformer."""
    return isinstance(case.architecture, ResidualArchitecture)


def _is_our_own_way(case: Case) -> bool:
    chain = Chain.of(case)
    return chain is not None and chain.names_library and not chain.is_foreign and chain.has_tripwire


def _by_model(cases: Iterable[Case]) -> dict[Case, list[Case]]:
    """Returns cases by what they are without strategy: the ways to reconstruct one network."""
    found: dict[Case, list[Case]] = {}
    for case in cases:
        found.setdefault(case.stored(), []).append(case)
    return found


def operations(evidence: Evidence) -> Iterator[Observation]:
    """Of each way to reconstruct a network: in the paper's text what can't be inverted is stored, in its authors' code it is
    recomputed, too."""
    for twin, cases in _by_model(_reconstructed(evidence, FLOPS_OF_STEP)).items():
        ratios = {c: ratio for c in cases if (ratio := operations_ratio(evidence, c, twin)) is not None}
        if ratios:
            words = ", ".join(f"{_name(case)} {ratio:.2f} ×" for case, ratio in ratios.items())
            yield Observation(words, OPERATIONS[0] <= max(ratios.values()) <= OPERATIONS[1], twin)


def depth(evidence: Evidence) -> Iterator[Observation]:
    """Of each reconstructed chain: the peak at the least and at the greatest depth."""
    for case, (depths, peaks) in peaks_by_depth(evidence).items():
        if case.strategy == "reconstructed":
            growth = fit_growth(depths, peaks)
            ends = f"{human_bytes(peaks[0])} at {depths[0]:.0f} blocks, {human_bytes(peaks[-1])} at {depths[-1]:.0f}"
            words = f"{family_name(case)}: {ends}"
            yield Observation(words, growth.form == "1")


def saving(evidence: Evidence) -> Iterator[Observation]:
    """Of each network the way that meets both, or else the one that saves most."""
    for twin, cases in _by_model(_reconstructed(evidence, MEMORY, TIME)).items():
        found = []
        for case in cases:
            saved = evidence.ratio(case, twin, MEMORY["activation_peak_bytes"])
            ratio = evidence.time_ratio(case, twin)
            if saved is not None and ratio is not None:
                holds = saved <= SAVING and _inside(ratio, 0.0, COST)
                one = _of_time(evidence, f"{_name(case)} {saved:.2f} × the activations for", (case, twin), ratio, holds)
                found.append((one.holds is not True, saved, one))
        if found:
            yield min(found, key=lambda one: one[:2])[2]


def time(evidence: Evidence) -> Iterator[Observation]:
    """Of each RevNet: the time of a step, over stored's."""
    for case in _reconstructed(evidence, TIME):
        ratio = evidence.time_ratio(case, case.stored())
        if ratio is not None and case.nonreversible == "kept":
            holds = _inside(ratio, *PAPER_TIME) if _is_of_the_paper(case) else None
            yield _of_time(evidence, _name(case), (case, case.stored()), ratio, holds)


def _inside(ratio: Ratio, low: float, high: float) -> bool | None:
    """Tells whether a ratio lies within two numbers; None if its interval holds one of them."""
    ends = [ratio.value if end is None else end for end in (ratio.low, ratio.high)]
    if low <= ends[0] and ends[1] <= high:
        return True
    return False if ends[1] < low or ends[0] > high else None


def _of_time(evidence: Evidence, name: str, cases: Sequence[Case], ratio: Ratio, holds: bool | None) -> Observation:
    """Says what a ratio of times says; an unstable one, and one of the host's time, bears no verdict."""
    if ratio.unstable:
        return Observation(f"{name} {ratio}, unstable", None, cases[0])
    if any(evidence.is_launch_bound(case) for case in cases):
        return Observation(f"{name} {ratio}, launch-bound", None, cases[0])
    return Observation(f"{name} {ratio}", holds, cases[0])


def training(evidence: Evidence) -> Iterator[Observation]:
    """Of each RevNet that was trained both ways: the difference of the errors at the end."""
    for case, seeds in trained_both_ways(evidence).items():
        yield _equivalent(case, differences(seeds))


def same_error(evidence: Evidence) -> Iterator[Observation]:
    """Of each RevNet: its error at the end less that of its ResNet."""
    for case, found in against_resnet(evidence).items():
        if not _is_of_the_paper(case):
            continue
        yield _equivalent(case, found)


def _equivalent(case: Case, found: Sequence[float]) -> Observation:
    """Says what a test of equivalence says; that nothing could be shown refutes nothing."""
    tested = equivalence(found)
    of = f"{len(found)} seed{'s' if len(found) > 1 else ''}"
    words = f"{network_name(case)} on {case.data}, {case.training_steps:,} steps: {tested.mean} points over {of}"
    return Observation(words, {SAME: True, DIFFERENT: False}.get(tested.verdict))


def angle(evidence: Evidence) -> Iterator[Observation]:
    """In float32, at the weights that a network begins with; what stored is off, too, and few draws bear no verdict."""
    for case in _reconstructed(evidence, DRIFT):
        verdict = verdict_of(evidence, case)
        angle = summarise_draws(evidence.samples(case, DRIFT["angle_degrees"]))
        if case.arithmetic.name == "float32" and verdict is not None and angle is not None:
            word = verdict.partition(":")[0]
            with_noise = bool(evidence.samples(case, DRIFT["error_over_noise"]))
            holds = {"safe": True, "unsafe": False, "caution": False if with_noise else None}.get(word)
            yield Observation(
                f"{network_name(case)} {human_degrees(angle.median)}, {word}", None if angle.low is None else holds
            )
    for case in evidence.cases(TRAINING):
        if case.strategy == "reconstructed" and not case.seed:
            series = evidence.series(case, TRAINING).get("angle_degrees", ())
            measured = [angle for angle in series if isinstance(angle, (int, float))]
            if measured:
                words = f"{network_name(case)} through a training on {case.data} at most {human_degrees(max(measured))}"
                yield Observation(words, None)


def inverse(evidence: Evidence) -> Iterator[Observation]:
    """Of each network: the error of its activations over what is predicted."""
    for case in evidence.cases(LIPSCHITZ):
        predicted = evidence.value(case, LIPSCHITZ["predicted_activation_error"])
        measured = summarise_draws(evidence.samples(case, DRIFT["activation_error"]))
        if predicted and measured and predicted.median and measured.median:
            over = measured.median / predicted.median
            words = f"{network_name(case)} in {case.arithmetic.name} {over:.2g} of what is predicted"
            yield Observation(words, 1 / PREDICTED_WITHIN <= over <= PREDICTED_WITHIN)


def memcnn(evidence: Evidence) -> Iterator[Observation]:
    """Of each RevNet: the time of a step, over its ResNet's."""
    for case in _reconstructed(evidence, TIME):
        resnet = group_of(case)
        if case.model not in MEMCNN_TRAINING_MINUTES or case.nonreversible != "kept" or not is_ordinary(resnet):
            continue
        ratio = evidence.time_ratio(case, resnet)
        if ratio is not None:
            published = MEMCNN_TRAINING_MINUTES[case.model] / MEMCNN_TRAINING_MINUTES[resnet.model]
            words = f"{network_name(case)} (published {published:.2f} ×)"
            holds = _inside(ratio, published / PUBLISHED_WITHIN, published * PUBLISHED_WITHIN)
            yield _of_time(evidence, words, (case, resnet), ratio, holds)


def kept(evidence: Evidence) -> Iterator[Observation]:
    """What forward leaves for backward, of that of the ResNet of the same size."""
    for case in _reconstructed(evidence, MEMORY):
        resnet = group_of(case)
        if case.model in MEMCNN_KEPT_MEGABYTES and case.nonreversible == "kept" and is_ordinary(resnet):
            ratio = evidence.ratio(case, resnet, MEMORY["kept_bytes"])
            if ratio is not None:
                published = MEMCNN_KEPT_MEGABYTES[case.model] / MEMCNN_KEPT_MEGABYTES[resnet.model]
                words = f"{network_name(case)} {ratio:.2f} × (published {published:.2f} ×)"
                yield Observation(words, published / KEPT_WITHIN <= ratio <= published * KEPT_WITHIN)


def peak_of_memcnn(evidence: Evidence) -> Iterator[Observation]:
    """Of each chain by MemCNN: what its forward pass leaves, and the peak of the step."""
    for case in evidence.cases(MEMORY):
        chain = Chain.of(case)
        if chain is not None and chain.library == "memcnn" and case.strategy == "reconstructed":
            kept = evidence.value(case, MEMORY["kept_bytes"])
            peak = evidence.value(case, MEMORY["allocated_activation_peak_bytes"])
            if kept is not None and peak is not None and kept.median > 0:
                words = f"{chain.kind} chain keeps {human_bytes(kept.median)} and peaks at {human_bytes(peak.median)}"
                yield Observation(words, peak.median >= FAR_ABOVE * kept.median, case)


def _name(case: Case) -> str:
    chain = Chain.of(case)
    return f"{network_name(case) if chain is None else f'{chain.kind} chain'} {strategy_of(case)}"
