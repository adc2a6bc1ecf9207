from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import revbench
from revbench.results.runs import read_run
from revbench.runner.environment import lines_of
from tests.compare.runs import drift_row, scaled, write
from tests.conftest import Cli


def test_models(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("models", "--json")
    assert code == 0
    found = {(m["model"], m.get("num_classes")): m for m in json.loads(out)}
    assert len(found) == 27
    assert found["revgpt-124m", None]["parameters"] == 124_439_808
    assert found["revnet-38", 100]["parameters"] == 475_060
    assert found["revnet-38", 100]["published_millions"] == "0.48"
    assert found["resnet-50", 1000]["published_millions"] is None
    code, out, _ = cli("models")
    assert code == 0
    assert "45,428,072" in out
    assert "45.2" in out
    assert "12 blocks of 768" in out


def test_run_then_report(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(
        "run", "revnet-38", "--probe", "flops", "--probe", "memory", "--image-size", "8", "--batch-size", "2",
        "--kept-half-blocks", "1", "--certify", "--output", "out", "--json")  # fmt: skip
    assert code == 0, err
    printed = json.loads(out)
    run = read_run(tmp_path / "out")
    assert len(run.rows) == len(printed["rows"]) == 8
    assert {row.case.strategy for row in run.rows} == {"stored", "reconstructed", "checkpointed", "recursive"}
    assert {(row.case.strategy, row.case.kept_half_blocks) for row in run.rows if row.case.certify} == {
        ("reconstructed", 1)
    }
    (tmp_path / "out" / "report.html").unlink()
    code, out, _ = cli("report", "out", "--json")
    assert code == 0
    assert "out/report.html" in json.loads(out)["files"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_who_it_is(cli: Cli) -> None:
    assert cli("--version") == (0, f"revbench {revbench.__version__}\n", "")
    long, short = cli("run", "--help"), cli("run", "-h")
    assert long == short
    assert long[0] == 0


def test_factories_that_talk_or_leave(cli: Cli) -> None:
    code, out, err = cli("estimate", "tests.prediction.operators:talkative", "--strategy", "stored", "--json")
    assert code == 0, err
    assert json.loads(out)["predictions"][0]["parameters"] == 10 * 4 + 10 + 4 * 28
    assert "built with care" in err
    code, out, err = cli("estimate", "tests.prediction.operators:leaves", "--strategy", "stored")
    assert (code, out) == (2, "")
    assert "its factory ends the process (not today)" in err
    code, _, err = cli("run", "tests.prediction.operators:leaves", "--output", "out")
    assert code == 2
    assert "can't be built: SystemExit: not today" in err
    code, _, err = cli("estimate", "tests.prediction.operators:NETWORK")
    assert code == 2
    assert "is a Sequential, not a function" in err


def test_run_of_an_ordinary_network(cli: Cli, tmp_path: Path) -> None:
    """It measures what the network supports."""
    code, _, err = cli(
        "run", "tests.prediction.test_predict:line", "--probe", "flops", "--image-size", "2", "--output", "out"
    )
    assert code == 0, err
    (row,) = read_run(tmp_path / "out").rows
    assert row.case.strategy == "stored"
    code, _, err = cli("run", "tests.prediction.test_predict:line", "--certify", "--output", "other")
    assert code == 2
    assert "which no model supports" in err


def test_estimate(cli: Cli, tmp_path: Path) -> None:
    fit = ("--strategy", "stored", "--batch-size", "4", "--fit", "16MiB")
    code, out, err = cli("estimate", "revnet-38", *fit, "--plot", "step.svg")
    assert code == 0, err
    assert "464,890 parameters" in out
    assert "stored" in out
    assert "of 16.0 MiB" in out
    assert "Left out: the CUDA context" in out
    assert "\x1b[" not in out  # no colours in a file
    picture = (tmp_path / "step.svg").read_text()
    assert picture.startswith("<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["step.svg"]
    chain = "revbench.peers:chain(kind=basic,blocks=4)"
    code, out, _ = cli("estimate", chain, "--strategy", "reconstructed", *fit, "--json")
    assert code == 0
    reconstructed, stored = json.loads(out)["predictions"]
    assert stored["case"]["device"] == "cuda"
    assert stored["peak_bytes"] > reconstructed["peak_bytes"]
    assert stored["largest_batch"]["value"] < reconstructed["largest_batch"]["value"]
    assert stored["deepest"] is None


def test_estimate_of_a_factory(cli: Cli) -> None:
    model = "revbench.peers:chain(kind=basic,blocks=2)"
    code, out, err = cli(
        "estimate", model, "--strategy", "stored", "--batch-size", "100", "--fit", "64MiB", "--fit-depth"
    )
    assert code == 0, err
    line = next(line for line in out.splitlines() if line.startswith("stored"))
    _, _, _, batch, depth, *_ = re.split(r"\s{2,}", line.strip())
    assert batch.isdigit()
    assert depth.startswith("none: ")  # batch 100 is too large for any depth


def test_estimate_without_a_prediction(cli: Cli) -> None:
    code, out, _ = cli("estimate", "resnet-32", "--strategy", "torch_budget", "--plot", "step.svg")
    assert code == 3
    assert "compiled code" in out


def test_nothing_measured_is_exit_code_3(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli(
        "run", "revnet-38", "--strategy", "stored", "--probe", "time", "--batch-size", str(10**11), "--output", "out"
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
        (["run", "revnet-38", "--learning-rate", "nan"], "learning_rate=nan"),
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
        (["estimate", "no.such:thing"], "'no.such:thing' can't be imported"),
        (["estimate", "os:getcwd"], "returned str, not a module"),
        (["estimate", "resnet-32", "--fit", "0GiB"], "'0GiB' is no memory at all"),
        (["estimate", "resnet-32", "--fit", "banana"], "'banana' is no size"),
        (["estimate", "resnet-32", "--fit-depth"], "--fit-depth needs --fit"),
        (["estimate", "resnet-32", "--plot", "step.gif"], "must end in .svg"),
        (["estimate", "resnet-32", "--strategy", "stored", "--plot", "no/such/folder/step.svg"], "can't write"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(cli: Cli, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = cli(*arguments)
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_env(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("env", "--json")
    assert code == 0
    lines = lines_of(json.loads(out))
    said = dict(line.split(maxsplit=1) for line in lines)
    assert (said["accelerators"] == "none") == (not torch.cuda.is_available())
    assert f"torch {torch.__version__.partition('+')[0]}" in said["packages"]


def test_compare(cli: Cli, tmp_path: Path) -> None:
    before, good = write(tmp_path / "before", drift_row()), write(tmp_path / "good", drift_row())
    bad = write(tmp_path / "bad", drift_row(**scaled("smooth_amplification", 3.0)))
    assert cli("compare", str(before), str(good))[0] == 0
    code, out, _ = cli("compare", str(before), str(bad))
    assert code == 1
    assert out.splitlines()[1].startswith("WORSE       RevNet-38 reconstructed")
    found = json.loads(cli("compare", str(before), str(bad), "--json")[1])
    assert found["failed"] is True
    assert found["findings"][0]["outcome"] == "worse"
    code, out, err = cli("compare", str(tmp_path / "nowhere"), str(bad))
    assert (code, out) == (2, "")
    assert "is not a run folder" in err
