"""What the paper, its reviewers and later work say, one by one: confirmed here, refuted here, or not measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from revbench.numerics.statistics import INTERVAL_DRAWS
from revbench.paper.published import (
    BEHRMANN_2021,
    MEMCNN_2019,
    MEMCNN_ISSUE_37,
    REVIEWS_2017,
)
from revbench.report.chain_groups import has_its_own_table
from revbench.report.charts.depth import FLAT
from revbench.report.document import Section, Table
from revbench.report.evidence import Evidence
from revbench.report.sections import claim_checks as checks
from revbench.report.sections import names
from revbench.report.sections.claim_checks import Observation
from revbench.report.sections.equivalence import (
    ENOUGH_SEEDS,
    MARGIN,
)

NOT_MEASURED = "not measured here"


@dataclass(frozen=True, eq=False)
class Claim:
    """What somebody published.

    Attributes:
        sentence: what is claimed.
        source: who did, and where.
        check: finds what was measured of it; nothing, if nothing can be.
        see: the name of the table that has the numbers, unless they are of chains by which libraries are compared.
        terms: what counts as so.
        otherwise: why nothing was measured of it, where that is not chance.
    """

    sentence: str
    source: str
    check: Callable[[Evidence], Iterable[Observation]] = lambda _: ()
    see: str = ""
    terms: str = ""
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
        if found:
            rows.append([claim.sentence, _verdict(found), "; ".join(one.words for one in found), claim.source])
            see.append(_table_of(evidence, claim, found))
    others = [f"{c.sentence} ({c.otherwise or c.source})" for c, found in checked.items() if not found]
    terms = [
        f"{claim.sentence.partition(',')[0].partition(':')[0]}: {claim.terms}." for claim, one in checked.items() if one
    ]
    notes = [" ".join(terms), _WITHOUT_VERDICT]
    if others:
        notes.append(f"{NOT_MEASURED.capitalize()}: {'; '.join(others)}.")
    return Table(
        "What was published, and what was found here", ("Claim", "Verdict", "Here", "Published in"), rows, 4, notes,
        name="claims", see=see,
    )  # fmt: skip


def _table_of(evidence: Evidence, claim: Claim, found: Sequence[Observation]) -> str:
    if any(one.case is not None and has_its_own_table(evidence, one.case) for one in found):
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


_WITHOUT_VERDICT = (
    "Times are of this machine, so what is refuted here may hold elsewhere. Where an interval of 95 % holds an end of a range,"
    " where a ratio is unstable, and where the host is what is timed (launch-bound), there is no verdict."
)


_EQUIVALENT = (
    f"a test of equivalence within {100 * MARGIN:.0f} point of validation error, over at least {ENOUGH_SEEDS} seeds"
)
_SECTION = "Gomez et al. 2017, section 3.2"
_FIGURE = "Gomez et al. 2017, Figure 4"

CLAIMS: Sequence[Claim] = (
    Claim(
        "Reconstruction needs a third more operations a step: 4N for 3N of the forward pass's N",
        source=_SECTION,
        check=checks.operations,
        see=names.TIME,
        terms=f"{checks.OPERATIONS[0]} to {checks.OPERATIONS[1]} × of the way that recomputes most",
    ),
    Claim(
        "An update takes 1.5 to 2 times as long, in the authors' own implementation",
        source=_SECTION,
        check=checks.time,
        see=names.TIME,
        terms="the interval lies within these, by an implementation that is not the authors'",
    ),
    Claim(
        "The authors' published code runs 5N where their text has 4N",
        source="github.com/renmengye/revnet-public",
        otherwise="revbench does not run the authors' code",
    ),
    Claim(
        "The storage of activations does not depend on depth",
        source="Gomez et al. 2017, Table 1",
        check=checks.depth,
        see=names.DEPTH,
        terms=f"the peak changes by less than {FLAT:.0%} over all depths",
    ),
    Claim(
        "About a quarter of the storage for about twice the time, in practice",
        source=REVIEWS_2017,
        check=checks.saving,
        see=names.MEMORY,
        terms=f"at most {checks.SAVING:.2f} × the activations for at most {checks.COST} × the time, of one of the ways",
    ),
    Claim(
        "Reconstruction does not slow training down: the same error after the same steps",
        source=_FIGURE,
        check=checks.training,
        see=names.EQUIVALENCE,
        terms=_EQUIVALENT,
    ),
    Claim(
        "The angle between the two gradients is small",
        source=_FIGURE,
        check=checks.angle,
        see=names.VERDICTS,
        terms="the verdict is safe, in float32, at the weights that a network begins with, over at least"
        f" {INTERVAL_DRAWS} draws",
    ),
    Claim(
        "A RevNet ends at the error of the ResNet of its size",
        source="Gomez et al. 2017, Tables 3 and 4",
        check=checks.same_error,
        see=names.ERRORS,
        terms=_EQUIVALENT,
    ),
    Claim(
        "Reversible blocks preserve volume, |det J| = 1",
        source=REVIEWS_2017,
        otherwise="it follows from the form of the block; a test of revbench holds small chains to it",
    ),
    Claim(
        "The error of reconstruction follows from the Lipschitz constants of the blocks",
        source=BEHRMANN_2021,
        check=checks.inverse,
        see=names.CAUSES,
        terms=f"the error is within a factor of {checks.PREDICTED_WITHIN:.0f} of what they predict",
    ),
    Claim(
        "A RevNet trains 1.16 to 1.47 × as long as its ResNet",
        source=MEMCNN_2019,
        check=checks.memcnn,
        see=names.TIME,
        terms=f"the interval lies within a factor of {checks.PUBLISHED_WITHIN} of the published",
    ),
    Claim(
        "After the forward pass a RevNet has 0.11 to 0.36 × of what its ResNet has allocated",
        source=MEMCNN_2019,
        check=checks.kept,
        see=names.MEMORY,
        terms=f"within a factor of {checks.KEPT_WITHIN} of the published, since engines differ in which tensors they keep",
    ),
    Claim(
        "The peak of MemCNN's whole step lies far above what its forward pass leaves",
        source=MEMCNN_ISSUE_37,
        check=checks.peak_of_memcnn,
        see=names.LIBRARIES,
        terms=f"at least {checks.FAR_ABOVE:.0f} × as high",
    ),
)
