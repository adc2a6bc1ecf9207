"""Runs of several machines joined, and what can't be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.pytest_plugin.collection import in_shard, parse_shard
from revbench.results.merge import merge_runs
from revbench.results.runs import ROWS, read_run
from tests.conftest import Cli, run_command
from tests.results.rows import ENVIRONMENT, make_row, write_run


def write(folder: Path, machine: str, *cases: Case, loss: float = 1.0) -> Path:
    columns = {"step": [1], "loss": [loss]}
    rows = [make_row(case=case, probe="training", environment_id=machine, metrics={}, samples={}) for case in cases]
    return write_run(folder, *((row, columns) for row in rows), environment={**ENVIRONMENT, "environment_id": machine})


A, B = (Case(model="revnet-38", batch_size=n) for n in (1, 2))


def test_each_row_keeps_its_environment_and_series(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", "a" * 12, A, B), write(tmp_path / "other", "b" * 12, A, loss=7.0)
    merge_runs([one, other], tmp_path / "all")
    found = read_run(tmp_path / "all")
    assert [(row.case, row.environment_id[0]) for row in found.rows] == [(A, "a"), (B, "a"), (A, "b")]
    assert [found.series(row)["loss"] for row in found.rows] == [[1.0], [1.0], [7.0]]
    assert set(found.environments) == {"a" * 12, "b" * 12}


def test_what_can_not_be_merged(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", "a" * 12, A), write(tmp_path / "other", "a" * 12, A)
    with pytest.raises(UserError, match=r"both hold training of revnet-38,batch_size=1, launch 1, of one machine"):
        merge_runs([one, other], tmp_path / "all")
    with pytest.raises(UserError, match="two or more"):
        merge_runs([one], tmp_path / "all")
    with pytest.raises(UserError, match="a run folder is given twice"):
        merge_runs([one, tmp_path / "other" / ".." / "one"], tmp_path / "all")
    with pytest.raises(UserError, match="holds a run already"):
        merge_runs([one, write(tmp_path / "third", "c" * 12, A)], other)
    rows = other / ROWS
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([json.dumps({"schema_version": 99}), *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="schema version 99; this revbench reads version 1"):
        merge_runs([one, other], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = write(tmp_path / "one", "a" * 12, A), write(tmp_path / "other", "b" * 12, A)

    def full(path: Path, content: bytes, *, sync: bool) -> None:
        path.parent.mkdir()
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("revbench.results.merge.write_atomically", full)
        with pytest.raises(UserError, match=r"No space left on device; make room and merge again"):
            merge_runs([one, other], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    assert len(merge_runs([one, other], tmp_path / "all").rows) == 2


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    one, other = write(tmp_path / "one", "a" * 12, A), write(tmp_path / "other", "b" * 12, A)
    code, out, _ = cli("merge", str(one), str(other), "--output", str(tmp_path / "all"))
    assert code == 0
    assert out.splitlines()[0] == f"2 rows of 2 environments in {tmp_path / 'all'}"
    assert (tmp_path / "all" / "report.html").is_file()
    code, _, err = cli("merge", str(one), str(tmp_path / "nowhere"), "--output", str(tmp_path / "more"))
    assert code == 2
    assert "is not a run folder" in err


def test_shards_are_all_of_it_and_keep_launches_together() -> None:
    names = [f"case {i}" for i in range(10)] * 3  # three launches
    shards = [in_shard(names, f"{i}/4") for i in range(1, 5)]
    assert [sum(column) for column in zip(*shards, strict=True)] == [1] * 30
    for shard in shards:
        assert shard[:10] == shard[10:20] == shard[20:]
        assert 2 <= sum(shard[:10]) <= 3


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", ""])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="must be I/N with I from 1 to N"):
        parse_shard(text)


@pytest.mark.slow
def test_two_shards_of_the_built_in_suites(tmp_path: Path) -> None:
    chosen = ("--benchmark", "-k", "parameters and revnet and not num_classes")
    for i in (1, 2):
        done = run_command(*chosen, f"--revbench-shard={i}/2", f"--revbench-output={i}", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    ids = [{row.case.id for row in read_run(tmp_path / str(i)).rows} for i in (1, 2)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {f"revnet-{n},batch_size=1" for n in (38, 56, 104, 110, 164)}
    bad = run_command(*chosen, "--revbench-shard=3/2", "--revbench-output=3", cwd=tmp_path)
    assert bad.returncode == 4
    assert "must be I/N" in bad.stderr
    assert not (tmp_path / "3").exists()
