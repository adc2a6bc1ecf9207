"""Two ends of a baton: nobody computes while the other one does, whatever becomes of the other one."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revbench.probes import baton
from revbench.probes.baton import Baton, move_to_first_core, release

Ends = tuple[dict[str, object], dict[str, object]]


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr(baton, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(baton, "PATIENCE_SECONDS", 20.0)
    pipes = [str(tmp_path / name) for name in ("a", "b")]
    for pipe in pipes:
        os.mkfifo(pipe)
    held = [os.open(pipe, os.O_RDWR) for pipe in pipes]
    one, other = (
        {"own": pipes[i], "other": pipes[1 - i], "first": i == 0, "session": "s"} for i in (0, 1)
    )  # fmt: skip
    yield one, other
    for end in held:
        os.close(end)


def in_turn(end: dict[str, object], log: list[str], turns: int, busy: threading.Lock) -> Callable[[], None]:
    def run() -> None:
        own = Baton(end)
        name = "first" if end["first"] else "second"

        def compute(what: str) -> None:
            assert busy.acquire(blocking=False), "both compute at once"
            log.append(f"{name} {what}")
            busy.release()

        given = own.begin()
        assert given == ({} if end["first"] or log == [] else {0: 3, 7: 64})
        compute("warms up")
        own.meet({0: 3, 7: 64} if end["first"] else given)
        for _ in range(turns):
            compute("turn")
            own.hand_over()
        own.leave()

    return run


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 5), (5, 2), (0, 3)])
def test_turns_alternate_until_one_leaves(ends: Ends, first: int, second: int) -> None:
    log: list[str] = []
    busy = threading.Lock()
    threads = [
        threading.Thread(target=in_turn(end, log, turns, busy))
        for end, turns in zip(ends, (first, second), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert log[:2] == ["first warms up", "second warms up"]
    both = min(first, second)
    for i in range(2, 2 + 2 * both, 2):
        assert sorted(log[i : i + 2]) == ["first turn", "second turn"]  # a pair, whoever leads
    assert log.count("first turn") == first
    assert log.count("second turn") == second


def test_who_leads_is_drawn(ends: Ends) -> None:
    """So that no rhythm of the machine meets the same process again and again."""
    log: list[str] = []
    busy = threading.Lock()
    threads = [threading.Thread(target=in_turn(end, log, 200, busy)) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    leaders = log[2::2]
    assert 70 <= leaders.count("first turn") <= 130
    changes = sum(a != b for a, b in itertools.pairwise(leaders))
    assert 70 <= changes <= 130  # and the last leader says nothing of the next one


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no thread to a core")
def test_a_turn_begins_on_the_first_core_and_may_leave_it() -> None:
    allowed = os.sched_getaffinity(0)
    found = []
    for _ in range(20):
        os.sched_setaffinity(0, {max(allowed)})
        os.sched_setaffinity(0, allowed)
        move_to_first_core()
        stat = Path(f"/proc/self/task/{threading.get_native_id()}/stat").read_text()
        found.append(int(stat.rpartition(")")[2].split()[36]))  # the core that it ran on last
        assert os.sched_getaffinity(0) == allowed
    assert found.count(min(allowed)) >= 15


def test_one_that_died_is_not_waited_for(ends: Ends) -> None:
    """Its parent says so, also before this one listens."""
    _, second = ends
    release(str(second["own"]))
    log: list[str] = []
    in_turn(second, log, 2, threading.Lock())()
    assert log == ["second warms up", "second turn", "second turn"]


def test_one_that_hangs_is_waited_for_so_long_and_no_longer(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baton, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(TimeoutError, match="does not answer"):
        Baton(ends[1]).begin()
