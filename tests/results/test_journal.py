"""The journal survives being cut anywhere, and takes nothing from strangers on trust."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revbench.case import Case
from revbench.errors import UserError
from revbench.results.benchmark_json import write_benchmark_json
from revbench.results.frames import load_runs
from revbench.results.journal import ROWS, Journal, read_run, write_atomically
from revbench.results.schema import Row
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
    if b"\n" not in kept:
        if kept:
            with pytest.raises(UserError, match="torn"):
                read_run(folder)
        return
    before = read_run(folder)
    assert [row.repeat for row in before.rows] == list(range(1, max(kept.count(b"\n") - 1, 1)))
    journal = Journal(folder, resume=True)
    journal.add_environment(ENVIRONMENT)
    journal.add_row(make_row(repeat=9))
    journal.close()
    after = read_run(folder)
    assert after.rows[:-1] == before.rows
    assert after.rows[-1].repeat == 9


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


@pytest.mark.parametrize("field", [k for k in ENVIRONMENT if k != "environment_id"])
def test_a_strangers_environment_is_checked(tmp_path: Path, field: str) -> None:
    for broken in ({k: v for k, v in ENVIRONMENT.items() if k != field}, {**ENVIRONMENT, field: None}):
        lines = [{"schema_version": 1}, {"kind": "environment", **broken}]
        (tmp_path / ROWS).write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(UserError, match=field):
            read_run(tmp_path)


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 100_000, '{"a": NaN}'])
def test_hostile_json(tmp_path: Path, text: str) -> None:
    (tmp_path / ROWS).write_text('{"schema_version": 1}\n' + text + "\n")
    with pytest.raises(UserError, match="line 2"):
        read_run(tmp_path)


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


LINE = {"kind": "row", **json.loads(json.dumps(make_row().to_json()))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "fine"}, "status"),
        ({"repeat": 0}, "repeat"),
        ({"repeat": True}, "repeat"),
        ({"metrics": {"a": [1]}}, "metric a"),
        ({"metrics": {"a": True}}, "metric a"),
        ({"metrics": []}, "metrics"),
        ({"metrics": {"a": 10**400}}, "metric a"),
        ({"case": {"model": "x", "strategy": "guess"}}, "strategy"),
        ({"case": {"model": "a\u0000b"}}, "unprintable"),
        ({"samples": {"a": ["x"]}}, "samples of a"),
        ({"series": "../../etc/passwd"}, "series"),
        ({"series": "a/b.json"}, "series"),
        ({"series": 3}, "series"),
        ({"message": 3}, "message"),
        ({"case": {"model": "x", "speed": 3}}, "unknown field"),
        ({"case": {"model": 3}}, "model"),
        ({"case": {"model": "x", "batch_size": "1"}}, "batch_size"),
        ({"case": {"model": "x", "deterministic": 1}}, "deterministic"),
        ({"case": {}}, "model"),
        ({"case": "x"}, "case"),
        ({"elapsed_seconds": "1"}, "elapsed_seconds"),
        ({"started": None}, "started"),
        ({"colour": "red"}, "unknown field colour"),
        ({"kind": "column"}, "neither"),
    ],
)
def test_a_strangers_line_is_checked(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / ROWS
    path.write_text(json.dumps({"schema_version": 1}) + "\n" + json.dumps({**LINE, **change}) + "\n")
    with pytest.raises(UserError, match=words) as caught:
        read_run(tmp_path)
    assert "line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[]\n", '{"schema_version": 2}\n', "\x80abc\n", "null\n", '{"schema_version": 1}\n\n']
)
def test_what_is_no_run_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / ROWS).write_bytes(text.encode("latin-1"))
    if text:
        with pytest.raises(UserError):
            read_run(tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        read_run(tmp_path / "absent")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(record=st.dictionaries(st.sampled_from([*LINE, "other"]), json_values))
def test_no_line_makes_a_traceback(record: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        Row.from_json({**LINE, **record})


def test_series_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    row = make_row()
    name = journal.add_series(row.key, {"step": [1, 2], "loss": [0.5, None]})
    other = journal.add_series((row.case.id + "/", *row.key[1:]), {"step": [1]})
    assert name != other
    journal.add_environment(ENVIRONMENT)
    journal.add_row(make_row(series=name))
    journal.close()
    run = read_run(tmp_path)
    assert run.series(make_row(series=name)) == {"step": [1, 2], "loss": [0.5, None]}
    assert run.series(make_row()) == {}
    assert run.series(make_row(series="absent.json")) == {}
    (tmp_path / "series" / name).write_text("[]")
    with pytest.raises(UserError, match="not an object"):
        run.series(make_row(series=name))
    for columns in ({"a": ["x"]}, {"a": [1], "b": [1, 2]}, {"a": [1e999]}):
        (tmp_path / "series" / name).write_text(json.dumps(columns))
        with pytest.raises(UserError, match="not numbers of one length"):
            run.series(make_row(series=name))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_benchmark_json_is_what_pytest_benchmark_would_have_written(tmp_path: Path) -> None:
    journal_with(tmp_path, 2)
    write_benchmark_json(read_run(tmp_path))
    document = json.loads((tmp_path / "benchmark.json").read_text())
    first, second = document["benchmarks"]
    assert first["name"] == "revnet-38,strategy=reconstructed,batch_size=16"
    assert second["fullname"] == "time::revnet-38,strategy=reconstructed,batch_size=16 (launch 2)"
    assert first["stats"]["data"] == [0.5, 0.25, 1.0]
    assert first["stats"]["median"] == 0.5
    assert first["stats"]["rounds"] == 3
    assert math.isclose(first["stats"]["mean"], 1.75 / 3)
    assert document["machine_info"]["environment_id"] == ENVIRONMENT["environment_id"]


def test_load_runs(tmp_path: Path) -> None:
    journal_with(tmp_path / "run", 2)
    frame = load_runs(tmp_path / "run")
    assert list(frame["repeat"]) == [1, 2]
    assert list(frame["step_seconds"]) == [0.5, 0.5]
    assert set(frame["case_id"]) == {Case(model="revnet-38", strategy="reconstructed", batch_size=16).id}
    with pytest.raises(UserError):
        load_runs(tmp_path)
