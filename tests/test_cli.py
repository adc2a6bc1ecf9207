from __future__ import annotations

import json
from pathlib import Path

import pytest

from revbench.results.journal import read_run
from tests.conftest import run_command


def cli(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    done = run_command(*arguments, cwd=cwd, module="revbench")
    return done.returncode, done.stdout, done.stderr


def test_models(tmp_path: Path) -> None:
    code, out, _ = cli("models", "--json", cwd=tmp_path)
    assert code == 0
    found = {(m["model"], m["num_classes"]): m for m in json.loads(out)}
    assert len(found) == 17
    assert found["revnet-38", 100]["parameters"] == 475_060
    assert found["revnet-38", 100]["published_millions"] == "0.48"
    assert found["resnet-50", 1000]["published_millions"] is None
    code, out, _ = cli("models", cwd=tmp_path)
    assert code == 0
    assert "45,428,072" in out
    assert "45.2" in out


def test_run_then_report(tmp_path: Path) -> None:
    code, out, err = cli(
        "run", "revnet-38", "--probe", "flops", "--probe", "memory", "--image-size", "8", "--batch-size", "2",
        "--kept-half-blocks", "1", "--certify", "--output", "out", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    printed = json.loads(out)
    run = read_run(tmp_path / "out")
    assert len(run.rows) == len(printed["rows"]) == 8
    assert {row.case.strategy for row in run.rows} == {"stored", "reconstructed", "checkpointed", "recursive"}
    assert {(row.case.strategy, row.case.kept_half_blocks) for row in run.rows if row.case.certify} == {
        ("reconstructed", 1)
    }
    (tmp_path / "out" / "report.html").unlink()
    code, out, _ = cli("report", "out", "--json", cwd=tmp_path)
    assert code == 0
    assert "out/report.html" in json.loads(out)["files"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_nothing_measured_is_exit_code_3(tmp_path: Path) -> None:
    code, out, _ = cli(
        "run",
        "revnet-38",
        "--strategy",
        "stored",
        "--probe",
        "time",
        "--batch-size",
        str(10**11),
        "--output",
        "out",
        cwd=tmp_path,
    )
    assert code == 3
    assert "oom" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "revnet-39"], "did you mean 'revnet-38'"),
        (["run", "resnet-32", "--strategy", "reconstructed"], "its pair revnet-38"),
        (["run", "revnet-38", "--strategy", "rebuilt"], "unknown strategy"),
        (["run", "revnet-38", "--dtype", "float8"], "unknown dtype"),
        (["run", "revnet-38", "--device", "cuda:99"], "is not there"),
        (["run", "revnet-38", "--batch-size", "0"], "batch_size=0"),
        (["run", "revnet-38", "--strategy", "stored", "--certify"], "strategy reconstructed"),
        (["run", "revbench.peers:chain(depth=9)"], "can't be called so"),
        (["run", "revnet-38", "--batch-size", "many"], "--batch-size"),
        (["run", "revnet-38", "--probe", "taste"], "unknown probe"),
        (["run", "revnet-38", "--repeats", "0"], "--repeats"),
        (["run", "revnet-38", "--output", "file/run"], "can't write"),
        (["run", "no.such:factory"], "can't be imported"),
        (["run"], "Missing argument"),
        (["report", "nothing"], "not a run folder"),
        (["report", "a", "b"], "--output"),
        (["fly"], "fly"),
        ([], "Missing command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = cli(*arguments, cwd=tmp_path)
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_env(tmp_path: Path) -> None:
    code, out, _ = cli("env", "--json", cwd=tmp_path)
    assert code == 0
    environment = json.loads(out)
    code, out, _ = cli("env", cwd=tmp_path)
    assert out.startswith(environment["environment_id"])
