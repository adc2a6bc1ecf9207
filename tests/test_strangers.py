"""Folders and files of strangers: nothing of theirs runs, nothing of theirs reaches a terminal as it is, nothing raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from revbench.results.runs import ROWS
from revbench.terminal import plain, printable
from tests.conftest import ROOT, Cli
from tests.results.rows import ENVIRONMENT, make_row, write_run

# What the libraries of a report import if it is there, and what plain names a stranger would try.
TRAPS = (
    "bottleneck", "numexpr", "pyarrow", "statsmodels", "sksparse", "numba", "IPython", "xarray", "tables", "lxml", "dill",
    "evil", "cupy", "onnx", "triton_extra", "ml_dtypes", "simplejson", "brotli", "colorama", "ipywidgets",
)  # fmt: skip

ALL_COMMANDS = """
import sys
from revbench.cli import main

for arguments in {commands!r}:
    sys.argv = ["revbench", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (arguments, ended.code)
"""


def run_with(folder: Path, *changes: dict[str, Any]) -> Path:
    return write_run(folder, *(make_row(**{"repeat": i + 1, **change}) for i, change in enumerate(changes or ({},))))


def test_a_strangers_folder_is_not_imported_from(tmp_path: Path) -> None:
    """Not by the commands that read runs, nor by those about networks of the catalogue; matplotlib's settings neither."""
    here = run_with(tmp_path / "run")
    for name in TRAPS:
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'a').write({name!r})\n")
    os.mkfifo(here / "matplotlibrc")  # which is waited for if it is opened; what is in it is evaluated in some versions
    other = run_with(tmp_path / "other", {"probe": "memory"})
    commands = [
        ["report", "."], ["merge", ".", str(other), "--output", "merged"],
        ["estimate", "revnet-38", "--strategy", "stored", "--plot", "steps.svg"],
        ["run", "revnet-38", "--strategy", "stored", "--probe", "parameters", "--output", "new"],
    ]  # fmt: skip
    program = ALL_COMMANDS.format(commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (here / "report.html").is_file()
    assert (here / "steps.svg").is_file()
    assert (here / "new" / ROWS).is_file()
    assert not (tmp_path / "pwned").exists(), (tmp_path / "pwned").read_text()


def test_a_factory_beside_the_user_is_found(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "mine_beside.py").write_text(
        "from torch import nn\n\n\ndef network():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))\n"
    )
    before = list(sys.path)
    code, _, err = cli("estimate", "mine_beside:network", "--strategy", "stored", "--image-size", "4")
    assert code == 0, err
    assert before == list(sys.path) or str(tmp_path) not in sys.path
    code, _, err = cli("run", "mine_beside:network", "--image-size", "4", "--probe", "parameters", "--output", "out")
    assert code == 0, err


ESCAPES = "\x1b[2J\x1b]0;title\x07\u202egnp\r\n::error:: x\u200b"


def test_what_strangers_wrote_is_printable() -> None:
    assert plain(ESCAPES) == r"\x1b[2J\x1b]0;title\x07\u202egnp ::error:: x\u200b"
    assert printable("a  b\tc\ud800") == r"a  b c\ud800"
    assert printable("größer × 3 – ≥") == "größer × 3 – ≥"


@pytest.mark.parametrize(
    "change",
    [
        {"message": ESCAPES, "status": "crashed", "metrics": {}, "samples": {}},
        {"metrics": {"step_seconds": None, "step_seconds_reason": ESCAPES}},
        {"started": ESCAPES[:50]},
    ],
)
def test_no_control_character_reaches_the_terminal(tmp_path: Path, cli: Cli, change: dict[str, Any]) -> None:
    run_with(tmp_path / "run", change)
    run_with(tmp_path / "drift", {**change, "probe": "drift"})
    for arguments in (
        ["report", "run"],
        ["compare", "run", "drift"],
        ["compare", "drift", "drift"],
        ["report", ESCAPES[:20]],
    ):
        code, out, err = cli(*arguments)
        assert code in (0, 1, 2)
        assert all(c.isprintable() or c == "\n" for c in out + err), arguments
        assert not err or len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("elapsed_seconds", "NaN"), ("elapsed_seconds", "1e999"), ("options", '{"a": NaN}'), ("options", '{"a": Infinity}'),
        ("options", '{"draws": [1, 2]}'), ("options", "[" * 900 + "]" * 900), ("metrics", '{"step_seconds": "fast"}'),
        ("metrics", '{"step_seconds": NaN}'), ("samples", '{"step_seconds": [1e308, 1e308]}'), ("samples", '{"a": [null]}'),
        ("message", '"\\\\ud800"'), ("probe", '"a\\\\u0000"'), ("started", '"yesterday"'), ("repeat", "1e3"),
    ],
)  # fmt: skip
def test_strange_rows_are_an_error_or_a_report(tmp_path: Path, cli: Cli, where: str, value: str) -> None:
    value = value.replace("\\\\", "\\")
    for name in ("one", "other"):
        folder = run_with(tmp_path / name, {"environment_id": ENVIRONMENT["environment_id"], "probe": "drift"})
        lines = (folder / ROWS).read_text().splitlines()
        row = json.loads(lines[-1])
        row[where] = "@"
        lines[-1] = json.dumps(row).replace('"@"', value)
        (folder / ROWS).write_text("\n".join(lines) + "\n")
    for arguments in (["report", "one"], ["compare", "one", "other"], ["merge", "one", "other", "--output", "all"]):
        code, _, err = cli(*arguments)
        assert code in (0, 2), err
        assert len(err.splitlines()) == (code == 2), err
        assert "did not foresee" not in err
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("memory_bytes",), None), (("cpu", "model"), 3), (("cpu", "usable_cores"), "two"), (("torch", "threads"), None),
        (("packages", "torch"), ["2"]), (("accelerators",), [{"name": "GPU", "memory_bytes": None, "driver": "1"}]),
        (("accelerators",), [3]), (("environment_id",), "a/b\n"), (("system",), "x" * 2000),
    ],
)  # fmt: skip
def test_a_strange_environment_is_an_error(tmp_path: Path, cli: Cli, where: tuple[str, ...], value: Any) -> None:
    folder = run_with(tmp_path / "run")
    lines = [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]
    inner = lines[1]
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    (folder / ROWS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, err = cli("report", "run")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "line 2" in err


def test_what_nobody_foresaw_is_one_line(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never exit code 1, which says that the gate failed; where it came from is shown to who asks."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("a fault\nof ours")

    monkeypatch.setattr("revbench.compare.compare_folders", broken)
    code, out, err = cli("compare", "a", "b")
    assert (code, out) == (2, "")
    assert err == (
        "revbench: an error that revbench did not foresee: RuntimeError: a fault; set REVBENCH_TRACEBACK=1 to see where, and"
        " report it\n"
    )
    monkeypatch.setenv("REVBENCH_TRACEBACK", "1")
    assert "in broken" in cli("compare", "a", "b")[2]


def test_files_that_can_not_be_read(tmp_path: Path, cli: Cli) -> None:
    run_with(tmp_path / "run")
    (tmp_path / "run" / ROWS).unlink()
    (tmp_path / "run" / ROWS).mkdir()
    for name in ("run", "x" * 260, "a\0b", "run/" + ROWS + "/more"):
        code, out, err = cli("report", name)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1, err


def test_a_report_is_not_written_through_links(tmp_path: Path, cli: Cli) -> None:
    """Not into a folder elsewhere, and not over a file elsewhere, whatever a stranger put into the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    run_with(tmp_path / "run")
    for name in ("report.html", "report.md", "report.pdf", "benchmark.json"):
        (tmp_path / "run" / name).symlink_to(outside / "mine")
    assert cli("report", "run")[0] == 0
    assert (tmp_path / "run" / "report.html").read_text() != "mine"
    (tmp_path / "steps.svg").symlink_to(outside / "mine")
    (tmp_path / ".steps.svg.part").symlink_to(outside / "mine")
    assert cli("estimate", "revnet-38", "--strategy", "stored", "--image-size", "8", "--plot", "steps.svg")[0] == 0
    assert [path.name for path in outside.iterdir()] == ["mine"]
    assert (outside / "mine").read_text() == "mine"


@pytest.mark.parametrize(("target", "code"), [("/dev/full", 2), ("closed", 141)])
def test_nobody_takes_what_is_printed(tmp_path: Path, target: str, code: int) -> None:
    program = [sys.executable, "-m", "revbench", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if target == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == code
    assert done.stderr == ("" if code == 141 else "revbench: can't use a file: No space left on device; make room\n")


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [(">&-", "--version", 0), ("2>&-", "compare a b", 2), ("<&- >&- 2>&-", "--version", 0)],
)
def test_streams_that_are_closed(tmp_path: Path, closed: str, arguments: str, code: int) -> None:
    """Not exit code 1, which says that the gate failed."""
    program = f"{sys.executable} -m revbench {arguments} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == ""


def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    program = f"mkdir here; cd here; rmdir ../here; exec {sys.executable} -m revbench --version"
    done = subprocess.run(
        ["/bin/sh", "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("revbench ")
