"""Overview: a card for each network, a sentence that weighs the strategies, and all of them in one picture."""

from __future__ import annotations

from collections.abc import Iterator

from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.compare.ratios import Ratio
from revbench.probes.declared import DRIFT
from revbench.report.charts.pairs import pairs_plane
from revbench.report.document import Block, Card, Cards, Fact, Paragraph, Section
from revbench.report.evidence import Evidence
from revbench.report.headlines import Beside, Headline, headlines, largest_of
from revbench.report.sections.iso_memory import fastest_within
from revbench.report.ways import advice
from revbench.units import human_bytes, human_degrees, human_rate, human_seconds, human_share

MOST_CARDS = 6
_ALIKE = 5e-3  # what two decimals don't show


def section(evidence: Evidence) -> Section | None:
    """Returns what somebody must know who reads nothing else."""
    return Section.of("Overview", _blocks(evidence))


def _blocks(evidence: Evidence) -> Iterator[Block | None]:
    found = headlines(evidence)
    cards = [card for one in found[:MOST_CARDS] if (card := card_of(evidence, one)).facts]
    if cards:
        yield Cards(cards)
    if len(found) > MOST_CARDS:
        yield Paragraph(f"These are the first {MOST_CARDS} of {len(found)} networks; the tables have all.")
    sentences = [advice(evidence, largest_of(found)), *fastest_within(evidence)]
    if said := " ".join(sentence for sentence in sentences if sentence):
        yield Paragraph(said)
    yield pairs_plane(evidence)


def card_of(evidence: Evidence, headline: Headline) -> Card:
    """Lays out what is known of a network; what is not is missing."""
    case = headline.case
    facts = [_memory(headline), _time(headline), _speed(headline), _batch(headline), _gradient(evidence, headline)]
    return Card(
        network_name(case), "stored", strategy_of(case), [fact for fact in facts if fact is not None],
        f"{circumstances(case)}; measured on {evidence.machine}",
    )  # fmt: skip


def _memory(headline: Headline) -> Fact | None:
    found, activations = headline.peak_bytes, headline.activation_peak_bytes
    if found is None:
        return None
    of_it = ""
    if activations is not None:
        of_it = f"of live tensors; above the steady state {' → '.join(map(human_bytes, activations))}{_times(activations, ', ')}"
    if (allocated := headline.allocated_peak_bytes) is not None:
        of_it += f"; allocated, with workspace of kernels, {' → '.join(map(human_bytes, allocated))}{_times(allocated, ', ')}"
    change, better = _change(found, less_is_better=True)
    return Fact("Peak memory of a step", human_bytes(found.stored), human_bytes(found.ours), change, better, of_it)


def _time(headline: Headline) -> Fact | None:
    found, ratio = headline.step_seconds, headline.ratio
    if found is None or ratio is None:
        return None
    change, better, note = _change_of_time(ratio, less_is_better=True)
    if headline.launch_bound:
        better, note = None, f"{note}; launch-bound: the host is what is timed"
    return Fact("Time of a step", human_seconds(found.stored), human_seconds(found.ours), change, better, note)


def _speed(headline: Headline) -> Fact | None:
    found, ratio = headline.items_per_second, headline.ratio
    if found is None or ratio is None:
        return None
    change, better, note = _change_of_time(ratio.inverse(), less_is_better=False)
    better = None if headline.launch_bound else better
    return Fact(
        f"{headline.case.item.capitalize()}s a second",
        human_rate(found.stored),
        human_rate(found.ours),
        change,
        better,
        note,
    )


def _batch(headline: Headline) -> Fact | None:
    found, limit = headline.largest_batch, headline.limit_bytes
    if found is None or limit is None:
        return None
    change, better = _change(found, less_is_better=False)
    name = f"Largest batch in {human_bytes(limit)}"
    return Fact(name, f"{found.stored:,.0f}", f"{found.ours:,.0f}", change, better, "predicted, byte for byte")


def _gradient(evidence: Evidence, headline: Headline) -> Fact | None:
    found = headline.angle_degrees
    if found is None or headline.verdict is None:
        return None
    name, off, now = "Gradient, off from float64", human_degrees(found.stored), human_degrees(found.ours)
    if headline.has_few_draws:
        return Fact(name, off, now, "too few draws", None, f"of {headline.draws} draws")
    seen = evidence.samples(headline.case, DRIFT["error_over_noise"])
    of_noise = f"at most {human_share(max(seen))} of a batch's noise; " if seen else ""
    is_fine = headline.verdict in ("safe", "as stored")
    return Fact(name, off, now, headline.verdict, is_fine, f"{of_noise}medians of {headline.draws} draws")


def _times(found: Beside, before: str = "") -> str:
    return "" if found.ratio is None else f"{before}{found.ratio:.2f} ×"


def _change(found: Beside, *, less_is_better: bool) -> tuple[str, bool | None]:
    """Returns a change that is exactly known, with its arrow, and whether it is for the better."""
    ratio = found.ratio
    if ratio is None or abs(ratio - 1) < _ALIKE:
        return _times(found), None
    return f"{'▲' if ratio > 1 else '▼'} {ratio:.2f} ×", (ratio < 1) == less_is_better


def _change_of_time(ratio: Ratio, *, less_is_better: bool) -> tuple[str, bool | None, str]:
    """Returns a change of times, whether it is for the better, and its interval; one that bears no sentence has the reason
    instead."""
    of = f"over {ratio.launches} launches" if ratio.launches > 1 else "of one launch"
    if ratio.unstable:
        return "unstable", None, f"{ratio.unstable}; {of}"
    low, high = (ratio.value if end is None else end for end in (ratio.low, ratio.high))
    ends = f"{low:.2f}", f"{high:.2f}"
    note = of if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} × (95 %) {of}"
    if low <= 1 <= high:
        return f"{ratio.value:.2f} ×", None, note
    return f"{'▲' if ratio.value > 1 else '▼'} {ratio.value:.2f} ×", (ratio.value < 1) == less_is_better, note
