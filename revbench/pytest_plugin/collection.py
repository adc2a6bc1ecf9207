"""Which cases become tests, and which of them are this machine's part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from revbench.case import Case
from revbench.case.pairs import group_of
from revbench.errors import UserError
from revbench.runner.settings import SETTINGS
from revbench.tiers import Plan


def default_plan(config: pytest.Config) -> Plan:
    """Returns the plan of ``--collect-only``, or of a suite collected without ``--benchmark``: nothing is opened for it."""
    device = config.option.revbench_device
    return Plan(
        tier=config.option.revbench_tier, device="cpu" if device == "auto" else device, data="digits", data_path="digits"
    )  # fmt: skip


def parametrise(metafunc: pytest.Metafunc, plan: Plan, repeats: int) -> None:
    """Make one test a case and launch; the launch outermost, so that the launches of a suite's cases interleave."""
    if "revbench" in metafunc.fixturenames and repeats > 1:
        launches = range(1, repeats + 1)
        metafunc.parametrize("_revbench_repeat", launches, ids=[f"launch {i}" for i in launches])
    mark = metafunc.definition.get_closest_marker("revbench_cases")
    if mark is None:
        return
    cases = mark.kwargs["of"](plan)
    if not cases:
        nothing = pytest.mark.skip(reason="no case of this suite can be measured on this device")
        metafunc.parametrize("case", [pytest.param(None, marks=nothing)], ids=["none"])
        return
    metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def deselect_other_shards(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Omit with ``--revbench-shard`` the other parts; the launches of a case stay together."""
    shard = config.option.revbench_shard
    if not shard:
        return
    kept = in_shard([_without_launch(item) for item in items], shard)
    others = [item for item, mine in zip(items, kept, strict=True) if not mine]
    items[:] = [item for item, mine in zip(items, kept, strict=True) if mine]
    config.hook.pytest_deselected(items=others)


def _without_launch(item: pytest.Item) -> str:
    """Returns what an item belongs to, whichever launch it is of: all cases that are compared go to one machine."""
    case = case_of(item)
    return group_of(case).id if case is not None else f"{item.path.name}::{item.name}"


def _params(item: pytest.Item) -> dict[str, Any]:
    return dict(getattr(getattr(item, "callspec", None), "params", {}))


def measures(item: pytest.Item) -> bool:
    """Tells whether a test has the fixture ``revbench``."""
    return "revbench" in getattr(item, "fixturenames", ())


def case_of(item: pytest.Item) -> Case | None:
    """Returns the case that a test is parametrised by; None if it makes its own."""
    case = _params(item).get("case")
    return case if isinstance(case, Case) else None


def check_grouping(group_by: str, items: Sequence[pytest.Item]) -> None:
    """See that ``--benchmark-group-by=param:NAME`` is by a parameter that some test has.

    Raises:
        UserError: none has it.
    """
    there = {name for item in items for name in _params(item) if not name.startswith("_")}
    for name in asked_params(group_by):
        if items and name not in there:
            known = ", ".join(sorted(there)) or "none"
            raise UserError(f"--benchmark-group-by={group_by}: no test has a parameter {name!r} (there are: {known})")


def asked_params(group_by: str) -> list[str]:
    """Returns the names of parameters by which pytest-benchmark is asked to group."""
    return [grouping[len("param:") :] for grouping in group_by.split(",") if grouping.startswith("param:")]


def compared_with(item: pytest.Item, case: Case) -> list[Case]:
    """Returns the cases that a probe of groups measures together with an item's own: those that the same test is still going to
    measure in this launch and that are compared with it; first the case itself.

    Args:
        item: of the test that is running.
        case: what it measures; one that is not the item's own is measured alone.
    """
    own = _params(item)
    if own.pop("case", None) != case or case.memory_limit_bytes:
        return [case]
    found = [case]
    items = item.session.items
    for other in items[items.index(item) + 1 :]:
        params = _params(other)
        candidate = params.pop("case", None)
        if (
            isinstance(candidate, Case)
            and (other.path, getattr(other, "originalname", "")) == (item.path, getattr(item, "originalname", ""))
            and params == own
            and group_of(candidate) == group_of(case)
            and all(getattr(candidate, field) == getattr(case, field) for field in SETTINGS)
        ):
            found.append(candidate)
    return found


def parse_shard(text: str) -> tuple[int, int]:
    """Returns the number and the count of ``I/N``.

    Raises:
        UserError: another form, or I that is not among 1 to N.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--revbench-shard={text} must be I/N with I from 1 to N, as 2/8")
    return int(found[1]), int(found[2])


def in_shard(names: Sequence[str], shard: str) -> list[bool]:
    """Returns which of these belong to a shard: distinct names are dealt out in turn, so that parts are of like size."""
    number, count = parse_shard(shard)
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return [place[name] % count == number - 1 for name in names]
