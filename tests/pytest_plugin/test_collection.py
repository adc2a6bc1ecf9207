"""Which cases are measured together, and which machine's part they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from revbench.case import Case
from revbench.case.pairs import group_of
from revbench.errors import UserError
from revbench.pytest_plugin.collection import _without_launch, check_grouping, compared_with, in_shard
from revbench.suite_cases import contenders, depth_cases, limit_leads, step_cases
from revbench.tiers import Plan

PLAN = Plan(tier="quick", device="cpu", data="digits", data_path="digits")
CASE = Case(model="revnet-38", batch_size=4)


def items_of(*params: dict[str, Any], name: str = "test_it", file: str = "bench.py") -> list[Any]:
    return [
        SimpleNamespace(path=Path(file), originalname=name, name=f"{name}[{i}]", callspec=SimpleNamespace(params=one))
        for i, one in enumerate(params)
    ]


def of(item: Any, *items: Any) -> list[Case]:
    item.session = SimpleNamespace(items=list(items))
    return compared_with(item, item.callspec.params["case"])


def test_a_test_measures_with_its_case_those_that_it_is_compared_with() -> None:
    strategies = [CASE.replace(strategy=name) for name in ("stored", "reconstructed", "checkpointed")]
    resnet, other = CASE.replace(model="resnet-32"), CASE.replace(batch_size=5)
    first, *rest = items = items_of(*[{"case": case} for case in (*strategies, resnet, other)])
    assert of(first, *items) == [*strategies, resnet]
    assert of(rest[0], *items) == [*strategies[1:], resnet]  # what has been measured is not measured again
    assert of(rest[-1], *items) == [other]


def test_other_tests_launches_and_settings_are_not_measured_with_it() -> None:
    ours = CASE.replace(strategy="reconstructed")
    first, second = items_of({"case": CASE, "_revbench_repeat": 1}, {"case": ours, "_revbench_repeat": 2})
    (elsewhere,) = items_of({"case": ours, "_revbench_repeat": 1}, name="test_other")
    (threads,) = items_of({"case": ours.replace(threads=1), "_revbench_repeat": 1})
    (word,) = items_of({"case": "a stranger's", "_revbench_repeat": 1})
    assert of(first, first, second, elsewhere, threads, word) == [CASE]


def test_a_case_of_the_tests_own_making_is_measured_alone() -> None:
    first, second = items_of({"case": CASE}, {"case": CASE.replace(strategy="reconstructed")})
    first.session = SimpleNamespace(items=[first, second])
    changed = CASE.replace(dtype="float64")
    assert compared_with(first, changed) == [changed]
    bare = SimpleNamespace(path=Path("t.py"), originalname="t", name="t", session=SimpleNamespace(items=[]))
    assert compared_with(bare, CASE) == [CASE]  # type: ignore[arg-type]
    limited = CASE.replace(memory_limit_bytes=2**30)
    first, second = items_of({"case": limited}, {"case": limited.replace(strategy="reconstructed")})
    assert of(first, first, second) == [limited]


def test_tests_are_grouped_by_a_parameter_that_one_of_them_has() -> None:
    items = items_of({"case": CASE, "_revbench_repeat": 1}, {"depth": 3})
    check_grouping("group,param:case,param:depth", items)
    with pytest.raises(UserError) as caught:
        check_grouping("param:cases", items)
    assert str(caught.value) == (
        "--benchmark-group-by=param:cases: no test has a parameter 'cases' (there are: case, depth)"
    )
    check_grouping("param:cases", [])  # that nothing was selected is said elsewhere


def test_a_shard_has_whole_groups() -> None:
    """All that is compared, whichever probe measures it, in whichever launch."""
    cases = [*step_cases(PLAN), *contenders(PLAN), *depth_cases(PLAN), *limit_leads(PLAN)]
    items = [
        item
        for suite in ("test_time", "test_memory")
        for repeat in (1, 2)
        for item in items_of(*[{"case": case, "_revbench_repeat": repeat} for case in cases], name=suite)
    ]
    names = [_without_launch(item) for item in items]
    shards = [in_shard(names, f"{i}/3") for i in range(1, 4)]
    for group in {group_of(case) for case in cases}:
        of_group = [i for i, item in enumerate(items) if group_of(item.callspec.params["case"]) == group]
        assert sum(any(shard[i] for i in of_group) for shard in shards) == 1
    sizes = [sum(shard) for shard in shards]
    assert sum(sizes) == len(items)
    assert min(sizes) > 0
