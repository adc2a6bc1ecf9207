"""The mark ``revbench_fail_on``: thresholds of the cases that one test measures."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from revbench.compare import Threshold, thresholds_of
from revbench.errors import UserError
from revbench.pytest_plugin.collection import measures
from revbench.results.schema import Row

NAME = "revbench_fail_on"


class MarkedThresholds:
    """Those of all tests of a session, and what each turned out to be for."""

    def __init__(self) -> None:
        self._marked: dict[tuple[str, str], Threshold] = {}
        self._of: dict[str, list[tuple[str, str]]] = {}
        self._for_cases: dict[tuple[str, str], dict[str, Threshold]] = {}

    def read(self, items: Iterable[pytest.Item]) -> None:
        """Read the marks of tests that measure, a class's and a module's included; the nearest to the test counts last.

        Raises:
            UserError: a mark that holds something else than thresholds.
        """
        for item in items:
            if not measures(item):
                continue
            test = item.nodeid.partition("[")[0]
            for mark in reversed(list(item.iter_markers(NAME))):
                if mark.kwargs or not mark.args or not all(isinstance(text, str) for text in mark.args):
                    raise UserError(f'{test}: give the mark {NAME} thresholds, as {NAME}("peak_bytes > 5.5%")')
                for text in mark.args:
                    key = (test, text)
                    if key not in self._marked:
                        try:
                            self._marked[key] = thresholds_of([text])[0]
                        except UserError as error:
                            raise UserError(f"{test}: {error}") from error
                    if key not in (keys := self._of.setdefault(item.nodeid, [])):
                        keys.append(key)

    def measured(self, item: pytest.Item, rows: Iterable[Row]) -> None:
        """Take note of what a test measured."""
        for row in rows:
            case_id = row.case.replace(device=row.case.device_type).id
            for key in self._of.get(item.nodeid, ()):
                one = self._marked[key]
                if row.probe == one.metric.probe and one.is_for(one.metric, case_id):
                    self._for_cases.setdefault(key, {})[case_id] = one.for_case(case_id)

    def thresholds(self) -> list[Threshold]:
        """Returns each for each case that its test measured.

        Raises:
            UserError: one is for nothing that its test measured.
        """
        for test, text in sorted(self._marked.keys() - self._for_cases.keys()):
            one = self._marked[test, text]
            raise UserError(
                f"{test}: its threshold {one.text!r} is for nothing, since the test measured no {one.metric.probe} of"
                f" {one.pattern!r}; measure that, or omit the threshold"
            )
        return [one for of_cases in self._for_cases.values() for one in of_cases.values()]
