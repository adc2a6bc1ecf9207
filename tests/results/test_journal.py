"""The journal survives being cut anywhere, and takes nothing from strangers on trust."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revbench.errors import UserError
from revbench.results.files import write_atomically
from revbench.results.journal import Journal, open_journal
from revbench.results.runs import HEADER, ROWS, read_run
from tests.results.rows import ENVIRONMENT, make_row


def journal_with(folder: Path, count: int) -> None:
    journal = Journal(folder)
    journal.add_environment(ENVIRONMENT)
    for i in range(count):
        journal.add_row(make_row(repeat=i + 1))
    journal.close()


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)
    rows = [make_row(), make_row(repeat=2, status="oom", metrics={}, samples={}, message="too big")]
    for row in rows:
        journal.add_row(row)
    journal.close()
    run = read_run(tmp_path)
    assert run.rows == rows
    assert run.environments == {ENVIRONMENT["environment_id"]: ENVIRONMENT}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_a_journal_cut_at_any_byte_is_readable_and_resumable(tmp_path: Path, cut: float) -> None:
    folder = tmp_path / f"{cut!r}"
    if folder.exists():
        return
    journal_with(folder, 3)
    path = folder / ROWS
    whole = path.read_bytes()
    kept = whole[: round(cut * len(whole))]
    path.write_bytes(kept)
    header = HEADER + b"\n"
    if 0 < len(kept) < len(HEADER):
        with pytest.raises(UserError, match="torn"):
            read_run(folder)
    else:  # a last record that lacks nothing but its newline counts
        records = whole.splitlines(keepends=True)[1:]
        ends = list(itertools.accumulate(map(len, records), initial=len(header)))[1:]
        counted = sum(len(kept) >= end - 1 for end in ends)
        assert [row.repeat for row in read_run(folder).rows] == list(range(1, max(counted, 1)))
    before = [json.loads(line) for line in kept.split(b"\n") if line in whole.splitlines()]
    journal = Journal(folder, resume=True)
    torn = kept.rpartition(b"\n")[2]
    if torn and torn not in whole.splitlines():
        (beside,) = folder.glob("rows.jsonl.torn-1")
        assert beside.read_bytes() == torn
        assert journal.notes == [f"the last line of {path} was cut off; what was there of it is in rows.jsonl.torn-1"]
    else:
        assert not journal.notes
    journal.add_environment(ENVIRONMENT)
    journal.add_row(make_row(repeat=9))
    journal.close()
    after = read_run(folder)
    assert [row.to_json() for row in after.rows[:-1]] == [line for line in before if line.get("kind") == "row"]
    assert after.rows[-1].repeat == 9


@pytest.mark.parametrize(
    "content",
    [
        '{"schema_version": 2}',
        '{"schema_version": 2}\n{"a": 1}\n',
        "my notes",
        "my notes\nof years",
        '{"a": 1}',
        "[1, 2",
    ],
)
def test_what_is_not_ours_is_not_touched(tmp_path: Path, content: str) -> None:
    """A newer version's rows, or a file of the user's own that has this name."""
    path = tmp_path / ROWS
    path.write_text(content)
    before = os.stat(path)
    with pytest.raises(UserError, match=rf"{ROWS}, line 1: "):
        Journal(tmp_path, resume=True)
    with pytest.raises(UserError, match="holds a run already"):
        Journal(tmp_path)
    assert path.read_text() == content
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns
    assert [p.name for p in tmp_path.iterdir()] == [ROWS]


def test_a_link_in_place_of_the_rows_is_not_followed(tmp_path: Path) -> None:
    journal_with(tmp_path / "somewhere", 2)
    target = tmp_path / "somewhere" / ROWS
    before = target.read_bytes()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ROWS).symlink_to(target)
    with pytest.raises(UserError, match="it is a link"):
        read_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"rows\.jsonl is a link"):
        Journal(tmp_path / "run", resume=True)
    (tmp_path / "run" / ROWS).unlink()
    (tmp_path / "run" / ROWS).symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError):
        Journal(tmp_path / "run")
    assert target.read_bytes() == before
    assert not (tmp_path / "nothing").exists()


def test_folders_of_a_run_that_are_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "training.pt").write_text("of somebody else")
    journal = Journal(tmp_path / "run")
    journal.add_environment(ENVIRONMENT)
    row = make_row(series="a.json")
    journal.add_row(row)
    for name in ("series", "checkpoints"):
        (tmp_path / "run" / name).symlink_to(outside)
    with pytest.raises(UserError, match="series is a link"):
        journal.add_series(row.key, {"a": [1]})
    with pytest.raises(UserError, match="series is a link"):
        journal.run.series(row)
    for act in (journal.has_checkpoint, journal.remove_checkpoints):
        with pytest.raises(UserError, match="checkpoints is a link"):
            act("training")
    journal.close()
    assert [path.name for path in outside.iterdir()] == ["training.pt"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ROWS)
    with pytest.raises(UserError, match="no regular file"):
        read_run(tmp_path)
    with pytest.raises(UserError):
        Journal(tmp_path, resume=True)


@pytest.mark.parametrize(
    "changes",
    [{"message": "x" * 10_001}, {"metrics": {"a": 2**63}}, {"options": {"a": [1] * 1001}}, {"samples": {"a": [1e200]}}],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    """It would cost all other rows."""
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)
    journal.add_row(make_row())
    with pytest.raises(UserError, match=r"a record of the run .* can't be written: "):
        journal.add_row(make_row(repeat=2, **changes))
    journal.close()
    assert [row.repeat for row in read_run(tmp_path).rows] == [1]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", without)
    monkeypatch.chdir(tmp_path)
    journal = open_journal(None, None, retry=False)
    assert journal.notes == [f"{journal.folder}: this file system has no locks; see that no other process writes there"]
    journal.close()


def test_closing_twice_closes_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.close()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    journal.close()
    os.fstat(descriptor)
    os.close(descriptor)


def test_an_interrupted_first_row_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.add_row(make_row())
    journal.close()
    assert len(read_run(tmp_path).rows) == 1


@pytest.mark.parametrize("tail", ["", '{"kind": "ro'])
def test_a_full_disk_while_a_run_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: str) -> None:
    journal_with(tmp_path, 1)
    path = tmp_path / ROWS
    path.write_bytes(path.read_bytes().rstrip(b"\n") if not tail else path.read_bytes() + tail.encode())
    before = path.read_bytes()

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        patched.setattr("os.fsync", full)
        with pytest.raises(UserError, match="No space left on device; make room and resume"):
            Journal(tmp_path, resume=True)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [ROWS]


def test_two_runs_in_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3):  # at least two of them in the same second
        journal = open_journal(None, None, retry=False)
        journal.add_environment(ENVIRONMENT)
        journal.add_row(make_row())
        journal.close()
    names = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert len(names) == 3
    assert any(name.endswith("Z-2") for name in names)


def test_the_users_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        journal_with(tmp_path / "private", 1)
        write_atomically(tmp_path / "private" / "report.html", "x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "private").iterdir()}
    assert modes == {ROWS: 0o600, "report.html": 0o600}


def test_a_link_in_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report.html").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "report.html", "theirs")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "report.html").is_symlink()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)
    journal.add_row(make_row())
    with pytest.raises(UserError, match="another process"):
        Journal(tmp_path, resume=True)
    journal.close()
    Journal(tmp_path, resume=True).close()


def test_a_run_without_a_row_leaves_nothing_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "run")
    journal.add_environment(ENVIRONMENT)
    journal.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    Journal(tmp_path / "kept").close()
    assert [p.name for p in tmp_path.rglob("*")] == ["kept"]


def test_a_full_disk_costs_one_row_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal_with(tmp_path, 2)
    journal = Journal(tmp_path, resume=True)
    write = os.write
    with monkeypatch.context() as patch:

        def half(descriptor: int, data: bytes) -> int:
            if len(data) > 50:
                return write(descriptor, data[:50])
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", half)
        with pytest.raises(UserError, match="No space left"):
            journal.add_row(make_row(repeat=3))
    journal.add_row(make_row(repeat=4))
    journal.close()
    assert [row.repeat for row in read_run(tmp_path).rows] == [1, 2, 4]


def test_a_name_too_long_for_the_system(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read_run(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="can't write"):
        Journal(tmp_path / ("x" * 300))


def test_a_run_is_not_overwritten_and_nothing_is_not_resumed(tmp_path: Path) -> None:
    journal_with(tmp_path / "a", 1)
    with pytest.raises(UserError, match="holds a run already"):
        Journal(tmp_path / "a")
    with pytest.raises(UserError, match="to resume"):
        Journal(tmp_path / "b", resume=True)
    assert not (tmp_path / "b").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        Journal(tmp_path / "file" / "run")
