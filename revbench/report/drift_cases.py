"""The cases of a table of drift, what they are called beside each other, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from revbench.case import Case
from revbench.case.labels import network_name, strategy_of
from revbench.case.pairs import paired
from revbench.numerics.part_table import PartTable
from revbench.numerics.verdict import PART_ERRORS, judge
from revbench.probes import Metric
from revbench.probes.declared import DRIFT
from revbench.report.evidence import Evidence
from revbench.report.table import Column, words


class DriftCases:
    """Cases that stand in one table.

    Args:
        evidence: what was measured of them.
        cases: in order of measurement.

    Attributes:
        networks: the cases in groups that differ in strategy and arithmetic only.
        if_one_strategy: a sentence that names the strategy, if there is only one; else it has a column.
    """

    def __init__(self, evidence: Evidence, cases: Iterable[Case]) -> None:
        self._evidence = evidence
        place = {case: i for i, case in enumerate(cases)}
        members: dict[Case, list[Case]] = {}
        batches: dict[str, set[int]] = {}
        for case in place:
            plain = case.in_float32()
            members.setdefault(plain, []).append(case)
            batches.setdefault(case.model, set()).add(case.batch_size)
        self.networks = [
            sorted((case for plain in group for case in members[plain]), key=place.__getitem__)
            for group in paired(members)
        ]
        self._several_batches = {model for model, sizes in batches.items() if len(sizes) > 1}
        ways = {self._way(case) for case in place}
        self._several_ways = len(ways) > 1
        self.if_one_strategy = f"All are {ways.pop()}. " if len(ways) == 1 else ""

    def heads(self) -> list[Column[Case]]:
        """Returns the columns that say which case it is."""
        strategy = [words("Strategy", self._way)] if self._several_ways else []
        return [words("Network", self.network), *strategy, words("Arithmetic", lambda case: case.arithmetic.name)]

    def network(self, case: Case) -> str:
        """Returns a network's name, with the batch where it was measured with several."""
        name = network_name(case)
        return f"{name}, batch {case.batch_size}" if case.model in self._several_batches else name

    def _way(self, case: Case) -> str:
        """Returns the strategy; of a network that back-propagates by functions of its own, these."""
        own = own_functions(self._evidence, case)
        return f"its own, {own}" if own else strategy_of(case)


def own_functions(evidence: Evidence, case: Case) -> str | None:
    """Returns the functions by which a network back-propagates itself, by name."""
    return evidence.word(case, DRIFT["own_functions"])


_SEVERITY = {"caution": 1, "unsafe": 2}


def verdict_of(evidence: Evidence, case: Case) -> str | None:
    """Returns the verdict of all launches' draws; of rows of an older revbench, which lack what is judged by, what they say
    themselves."""
    samples = {metric.name: values for metric in DRIFT.metrics if (values := evidence.samples(case, metric))}
    own = own_functions(evidence, case)
    if not {"relative_error", "significant_digits"} <= samples.keys() or (own and "derivative_error" not in samples):
        said = _all_words(evidence, case, DRIFT["verdict_words"])
        return max(said, key=lambda words: _SEVERITY.get(words.partition(":")[0], 0), default=None)
    tables = [PartTable(evidence.series_of(row)) for row in evidence.launches(case, DRIFT)]
    casts = _all_words(evidence, case, DRIFT["coarse_casts"])
    return judge(
        samples, PartTable.joined(tables, PART_ERRORS), case.strategy, case.arithmetic,
        _all_words(evidence, case, DRIFT["trace"]), ", ".join(casts) or None, own,
    ).words  # fmt: skip


def _all_words(evidence: Evidence, case: Case, metric: Metric) -> Sequence[str]:
    """Returns what the launches say, each word once."""
    said = (row.metrics.get(metric.name) for row in evidence.launches(case, DRIFT))
    return list(dict.fromkeys(str(word) for word in said if word))
