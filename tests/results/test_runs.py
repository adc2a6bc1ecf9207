"""What is read from run folders is held to its type, whoever wrote it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.errors import UserError
from revbench.results.journal import Journal
from revbench.results.runs import ROWS, read_run
from revbench.results.wire import decode_record
from tests.results.rows import ENVIRONMENT, make_row


@pytest.mark.parametrize(
    "change",
    [
        {"message": "x" * 10_001},
        {"metrics": {"a" * 201: 1}},
        {"metrics": {"\x1b[2J": 1}},
        {"options": {"a": [1] * 1001}},
        {"options": {"a": {"b": 1}}},
        {"probe": "a\nb"},
        {"case": {"model": "m" * 1001}},
    ],
)
def test_what_is_too_long_or_nested_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / ROWS).write_text('{"schema_version": 1}\n' + json.dumps({**LINE, **change}) + "\n")
    with pytest.raises(UserError, match="line 2"):
        read_run(tmp_path)


def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revbench.results.runs.MOST_LINE_BYTES", 1000)
    (tmp_path / ROWS).write_text('{"schema_version": 1}\n' + "x" * 2000 + "\n")
    with pytest.raises(UserError, match="line 2: longer than 1000 B"):
        read_run(tmp_path)


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


LINE = {"kind": "row", **json.loads(json.dumps(make_row().to_json()))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "fine"}, "status"),
        ({"repeat": 0}, "repeat"),
        ({"repeat": True}, "repeat"),
        ({"metrics": {"a": [1]}}, "metrics"),
        ({"metrics": {"a": True}}, "metrics"),
        ({"metrics": []}, "metrics"),
        ({"metrics": {"a": 10**400}}, "Expected `int` <="),
        ({"case": {"model": "x", "strategy": "guess"}}, "strategy"),
        ({"case": {"model": "a\u0000b"}}, "unprintable"),
        ({"samples": {"a": ["x"]}}, "samples"),
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
        ({"colour": "red"}, "unknown field `colour`"),
        ({"kind": "column"}, "Invalid value 'column'"),
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
        decode_record(json.dumps({**LINE, **record}).encode())


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
    with pytest.raises(UserError, match="Expected `object`"):
        run.series(make_row(series=name))
    for columns in ({"a": ["x"]}, {"a": [1], "b": [1, 2]}, {"a": [1e999]}):
        (tmp_path / "series" / name).write_text(json.dumps(columns))
        with pytest.raises(UserError, match=r"not numbers of one length|out of range|malformed"):
            run.series(make_row(series=name))
