"""What the paper, its reviewers and later work say, one by one: confirmed here, refuted here, or not measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import strategy_of, title_of
from revbench.case.pairs import group_of, is_resnet
from revbench.compare.ratios import Ratio
from revbench.numerics.statistics import INTERVAL_DRAWS, summarise_draws
from revbench.paper.published import (
    BEHRMANN_2021,
    MEMCNN_2019,
    MEMCNN_ISSUE_37,
    MEMCNN_KEPT_MEGABYTES,
    MEMCNN_TRAINING_MINUTES,
    REVIEWS_2017,
)
from revbench.probes import Probe
from revbench.probes.declared import DRIFT, FLOPS_OF_STEP, LIPSCHITZ, MEMORY, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.charts.depth import FLAT, fit_growth, peaks_by_depth
from revbench.report.document import Section, Table
from revbench.report.drift_cases import verdict_of
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.sections.equivalence import (
    DIFFERENT,
    ENOUGH_SEEDS,
    MARGIN,
    SAME,
    against_resnet,
    differences,
    equivalence,
    trained_both_ways,
)
from revbench.report.sections.operations import operations_ratio
from revbench.units import human_bytes, human_degrees

NOT_MEASURED = "not measured here"
_OPERATIONS = (1.25, 1.36)  # what is about a third more
_SAVING, _COST = 1 / 3.5, 2.2  # what is about four times less, and about twice
_PAPER_TIME = (1.5, 2.0)
_PREDICTED_WITHIN = 4.0
_PUBLISHED_WITHIN = 1.1
_KEPT_WITHIN = 1.25  # of bytes: which tensors are kept differs between engines
_FAR_ABOVE = 2.0


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


@dataclass(frozen=True, eq=False)
class Claim:
    """What somebody published.

    Attributes:
        sentence: what is claimed.
        source: who did, and where.
        check: finds what was measured of it.
        see: the name of the table that has the numbers, unless they are of chains by which libraries are compared.
        otherwise: why nothing was measured of it, where that is not chance.
    """

    sentence: str
    source: str
    check: Callable[[Evidence], Iterable[Observation]]
    see: str
    otherwise: str = ""


def section(evidence: Evidence) -> Section | None:
    """Returns the checklist, if anything of it was measured."""
    return Section.of("What was claimed", [claims_table(evidence)])


def claims_table(evidence: Evidence) -> Table | None:
    """Returns a line for each claim; None if nothing was measured of any."""
    checked = {claim: list(claim.check(evidence)) for claim in CLAIMS}
    if not any(checked.values()):
        return None
    rows, see = [], []
    for claim, found in checked.items():
        here = "; ".join(one.words for one in found) or claim.otherwise
        rows.append([claim.sentence, claim.source, here, _verdict(found)])
        see.append(_table_of(claim, found))
    return Table(
        "What was published, and what was found here", ("Claim", "Published in", "Here", "Verdict"), rows, 4, _NOTES,
        name="claims", see=see,
    )  # fmt: skip


def _table_of(claim: Claim, found: Sequence[Observation]) -> str:
    if any(one.case is not None and has_its_own_table(one.case) for one in found):
        return names.LIBRARIES
    return claim.see if found else ""


def _verdict(found: Sequence[Observation]) -> str:
    holds = [one.holds for one in found if one.holds is not None]
    if not found:
        return NOT_MEASURED
    if not holds:
        return "can't be told from this"
    if all(holds):
        return "confirmed"
    return "refuted here" if not any(holds) else f"confirmed of {sum(holds)} of {len(holds)}"


_NOTES = (
    f"About a third more: {_OPERATIONS[0]} to {_OPERATIONS[1]} × of the way that recomputes most. A quarter for twice: at most"
    f" {_SAVING:.2f} × the activations for at most {_COST} × the time, of one of the ways. Independent of depth: grows by less"
    f" than {FLAT:.0%} over all depths. The same error: a test of equivalence within {100 * MARGIN:.0f} point of validation"
    f" error, over at least {ENOUGH_SEEDS} seeds. Small angle: to the gradient of stored in float64, of float32 at the weights"
    f" that a network begins with, over at least {INTERVAL_DRAWS} draws, each with the verdict safe. Follows from the constants:"
    f" measured within a factor of {_PREDICTED_WITHIN:.0f} of what they predict. MemCNN's times: within a factor of"
    f" {_PUBLISHED_WITHIN}, its bytes of {_KEPT_WITHIN}. Far above: at least {_FAR_ABOVE:.0f} ×.",
    "Times are of this machine, so what is refuted here may hold elsewhere. Where an interval of 95 % holds an end of a range,"
    " where a ratio is unstable, and where the host is what is timed (launch-bound), there is no verdict.",
)


def _reconstructed(evidence: Evidence, *probes: Probe) -> list[Case]:
    """Returns the networks; where there is none our own ways to back-propagate the chains by which libraries are compared."""
    found = [
        case for case in evidence.cases(*probes)
        if case.strategy == "reconstructed" and not (case.certify or case.compile or case.kept_half_blocks)
    ]  # fmt: skip
    return [case for case in found if not has_its_own_table(case)] or [c for c in found if _is_our_own_way(c)]


def _is_our_own_way(case: Case) -> bool:
    chain = Chain.of(case)
    return chain is not None and chain.names_library and not chain.is_foreign and chain.has_tripwire


def _by_model(cases: Iterable[Case]) -> dict[Case, list[Case]]:
    """Returns cases by what they are without strategy: the ways to reconstruct one network."""
    found: dict[Case, list[Case]] = {}
    for case in cases:
        found.setdefault(case.stored(), []).append(case)
    return found


def _operations(evidence: Evidence) -> Iterator[Observation]:
    """Of each way to reconstruct a network: in the paper's text what can't be inverted is stored, in its authors' code it is
    recomputed, too."""
    for twin, cases in _by_model(_reconstructed(evidence, FLOPS_OF_STEP)).items():
        ratios = {c: ratio for c in cases if (ratio := operations_ratio(evidence, c, twin)) is not None}
        if ratios:
            words = ", ".join(f"{_name(case)} {ratio:.2f} ×" for case, ratio in ratios.items())
            yield Observation(words, _OPERATIONS[0] <= max(ratios.values()) <= _OPERATIONS[1], twin)


def _depth(evidence: Evidence) -> Iterator[Observation]:
    for case, (depths, peaks) in peaks_by_depth(evidence).items():
        if case.strategy == "reconstructed":
            growth = fit_growth(depths, peaks)
            words = f"{human_bytes(peaks[0])} at {depths[0]:.0f} blocks, {human_bytes(peaks[-1])} at {depths[-1]:.0f}"
            yield Observation(words, growth.form == "1")


def _saving(evidence: Evidence) -> Iterator[Observation]:
    """Of each network the way that meets both, or else the one that saves most."""
    for twin, cases in _by_model(_reconstructed(evidence, MEMORY, TIME)).items():
        found = []
        for case in cases:
            saved = evidence.ratio(case, twin, MEMORY["activation_peak_bytes"])
            ratio = evidence.time_ratio(case, twin)
            if saved is not None and ratio is not None:
                holds = saved <= _SAVING and _inside(ratio, 0.0, _COST)
                one = _of_time(evidence, f"{_name(case)} {saved:.2f} × the activations for", (case, twin), ratio, holds)
                found.append((one.holds is not True, saved, one))
        if found:
            yield min(found, key=lambda one: one[:2])[2]


def _time(evidence: Evidence) -> Iterator[Observation]:
    for case in _reconstructed(evidence, TIME):
        ratio = evidence.time_ratio(case, case.stored())
        if ratio is not None and case.nonreversible == "kept":
            yield _of_time(evidence, _name(case), (case, case.stored()), ratio, _inside(ratio, *_PAPER_TIME))


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


def _training(evidence: Evidence) -> Iterator[Observation]:
    for case, seeds in trained_both_ways(evidence).items():
        yield _equivalent(case, differences(seeds))


def _same_error(evidence: Evidence) -> Iterator[Observation]:
    for case, found in against_resnet(evidence).items():
        yield _equivalent(case, found)


def _equivalent(case: Case, found: Sequence[float]) -> Observation:
    """Says what a test of equivalence says; that nothing could be shown refutes nothing."""
    tested = equivalence(found)
    of = f"{len(found)} seed{'s' if len(found) > 1 else ''}"
    words = f"{title_of(case.model)} on {case.data}, {case.training_steps:,} steps: {tested.mean} points over {of}"
    return Observation(words, {SAME: True, DIFFERENT: False}.get(tested.verdict))


def _angle(evidence: Evidence) -> Iterator[Observation]:
    """In float32, at the weights that a network begins with; what stored is off, too, and few draws bear no verdict."""
    for case in _reconstructed(evidence, DRIFT):
        verdict = verdict_of(evidence, case)
        angle = summarise_draws(evidence.samples(case, DRIFT["angle_degrees"]))
        if case.arithmetic.name == "float32" and verdict is not None and angle is not None:
            word = verdict.partition(":")[0]
            with_noise = bool(evidence.samples(case, DRIFT["error_over_noise"]))
            holds = {"safe": True, "unsafe": False, "caution": False if with_noise else None}.get(word)
            yield Observation(
                f"{title_of(case.model)} {human_degrees(angle.median)}, {word}", None if angle.low is None else holds
            )


def _inverse(evidence: Evidence) -> Iterator[Observation]:
    for case in evidence.cases(LIPSCHITZ):
        predicted = evidence.value(case, LIPSCHITZ["predicted_activation_error"])
        measured = summarise_draws(evidence.samples(case, DRIFT["activation_error"]))
        if predicted and measured and predicted.median and measured.median:
            over = measured.median / predicted.median
            words = f"{title_of(case.model)} in {case.arithmetic.name} {over:.2g} of what is predicted"
            yield Observation(words, 1 / _PREDICTED_WITHIN <= over <= _PREDICTED_WITHIN)


def _memcnn(evidence: Evidence) -> Iterator[Observation]:
    for case in _reconstructed(evidence, TIME):
        resnet = group_of(case)
        if case.model not in MEMCNN_TRAINING_MINUTES or case.nonreversible != "kept" or not is_resnet(resnet):
            continue
        ratio = evidence.time_ratio(case, resnet)
        if ratio is not None:
            published = MEMCNN_TRAINING_MINUTES[case.model] / MEMCNN_TRAINING_MINUTES[resnet.model]
            words = f"{title_of(case.model)} (published {published:.2f} ×)"
            holds = _inside(ratio, published / _PUBLISHED_WITHIN, published * _PUBLISHED_WITHIN)
            yield _of_time(evidence, words, (case, resnet), ratio, holds)


def _kept(evidence: Evidence) -> Iterator[Observation]:
    """What forward leaves for backward, of that of the ResNet of the same size."""
    for case in _reconstructed(evidence, MEMORY):
        resnet = group_of(case)
        if case.model in MEMCNN_KEPT_MEGABYTES and case.nonreversible == "kept" and is_resnet(resnet):
            ratio = evidence.ratio(case, resnet, MEMORY["kept_bytes"])
            if ratio is not None:
                published = MEMCNN_KEPT_MEGABYTES[case.model] / MEMCNN_KEPT_MEGABYTES[resnet.model]
                words = f"{title_of(case.model)} {ratio:.2f} × (published {published:.2f} ×)"
                yield Observation(words, published / _KEPT_WITHIN <= ratio <= published * _KEPT_WITHIN)


def _peak_of_memcnn(evidence: Evidence) -> Iterator[Observation]:
    for case in evidence.cases(MEMORY):
        chain = Chain.of(case)
        if chain is not None and chain.library == "memcnn" and case.strategy == "reconstructed":
            kept = evidence.value(case, MEMORY["kept_bytes"])
            peak = evidence.value(case, MEMORY["allocated_activation_peak_bytes"])
            if kept is not None and peak is not None and kept.median > 0:
                words = f"{chain.kind} chain keeps {human_bytes(kept.median)} and peaks at {human_bytes(peak.median)}"
                yield Observation(words, peak.median >= _FAR_ABOVE * kept.median, case)


def _nothing(evidence: Evidence) -> Iterator[Observation]:
    return iter(())


def _name(case: Case) -> str:
    chain = Chain.of(case)
    return f"{title_of(case.model) if chain is None else f'{chain.kind} chain'} {strategy_of(case)}"


_SECTION = "Gomez et al. 2017, section 3.2"
CLAIMS: Sequence[Claim] = (
    Claim(
        "Reconstruction needs a third more operations a step: 4N for 3N of the forward pass's N",
        _SECTION, _operations, names.TIME,
    ),
    Claim(
        "An update takes 1.5 to 2 times as long, in the authors' own implementation", _SECTION, _time, names.TIME,
    ),
    Claim(
        "The authors' published code runs 5N where their text has 4N", "github.com/renmengye/revnet-public", _nothing, "",
        "revbench does not run the authors' code",
    ),
    Claim("The storage of activations does not depend on depth", "Gomez et al. 2017, Table 1", _depth, names.DEPTH),
    Claim("About a quarter of the storage for about twice the time, in practice", REVIEWS_2017, _saving, names.MEMORY),
    Claim(
        "Reconstruction does not slow training down: the same error after the same steps",
        "Gomez et al. 2017, Figure 4", _training, names.EQUIVALENCE,
    ),
    Claim(
        "The angle between the two gradients is small, and training is not affected by it", "Gomez et al. 2017, Figure 4",
        _angle, names.VERDICTS,
    ),
    Claim(
        "A RevNet ends at the error of the ResNet of its size", "Gomez et al. 2017, Tables 3 and 4", _same_error, names.ERRORS,
    ),
    Claim(
        "Reversible blocks preserve volume, |det J| = 1", REVIEWS_2017, _nothing, "",
        "it follows from the form of the block; a test of revbench holds small chains to it",
    ),
    Claim(
        "The error of reconstruction follows from the Lipschitz constants of the blocks", BEHRMANN_2021, _inverse, names.CAUSES,
    ),
    Claim("A RevNet trains 1.16 to 1.47 × as long as its ResNet", MEMCNN_2019, _memcnn, names.TIME),
    Claim(
        "After the forward pass a RevNet has 0.11 to 0.36 × of what its ResNet has allocated", MEMCNN_2019, _kept, names.MEMORY,
    ),
    Claim(
        "The peak of MemCNN's whole step lies far above what its forward pass leaves", MEMCNN_ISSUE_37, _peak_of_memcnn,
        names.LIBRARIES,
    ),
)  # fmt: skip
