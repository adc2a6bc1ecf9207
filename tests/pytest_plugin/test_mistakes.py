"""A mistake on the command line is one line and exit code 4, and nothing is written."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from tests.conftest import run_command

MISTAKES = [
    (["--revbench-tier=enormous"], "unknown tier 'enormous'"),
    (["--revbench-device=cuda:99"], "is not there"),
    (["--revbench-device=tpu"], "unknown device"),
    (["--revbench-data=python-docs"], "'python-docs' holds no images"),
    (["--revbench-data=/no/such/folder"], "'/no/such/folder' is neither a folder nor a file"),
    (["--revbench-data=empty"], "holds no images"),
    (["--revbench-output=file/run"], "can't write the run folder"),
    (["--revbench-resume=nothing"], "to resume"),
    (["--revbench-resume=a", "--revbench-output=b"], "omit --revbench-output"),
    (["--revbench-repeats=0"], "at least 1"),
    (["--benchmark-max-time=nan"], "must be a number of seconds"),
    (["--revbench-retry"], "give it with --revbench-resume=DIR"),
    (["--benchmark-disable"], "can't apply"),
    (["--benchmark-only"], "can't apply"),
    (["--collect-only", "--revbench-tier=huge"], "unknown tier"),
    (["--benchmark-timer=time.perf_counter"], "can't apply"),
    (["--benchmark-compare-fail=mean:5%"], "give --benchmark-compare, too"),
    (["--benchmark-compare-fail=mean:5%", "--benchmark-compare"], "would compare nothing: there is no run"),
    (
        ["--benchmark-compare-fail=mean:5%", "--benchmark-compare=0007"],
        "would compare nothing: '0007' is none of the runs",
    ),
    (["--benchmark-compare-fail=mean:5%", "--benchmark-compare=a/b/c"], "isn't an existing file or acceptable glob"),
    (["--benchmark-storage=http://host"], "Storage must be in form of"),
    (["--benchmark-group-by=name,fun"], "unknown grouping 'fun'"),
    (["--benchmark-json=nowhere/found.json"], "no such folder"),
    (["-n", "2"], "pytest-xdist"),
    (["-p", "no:benchmark"], "pytest-benchmark"),
]
if find_spec("pygal") is None:  # pytest-benchmark's extra
    MISTAKES.append((["--benchmark-histogram"], "pip install 'pytest-benchmark[histogram]'"))
# All in one process, whose imports they share: exit code and what is said of each, in a folder of its own.
EACH = """
import contextlib, io, json, os, sys
import pytest

found = []
for number, arguments in enumerate(json.loads(sys.argv[1])):
    os.mkdir(str(number))
    os.chdir(str(number))
    os.mkdir("empty")
    open("file", "w").close()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = pytest.main(["--benchmark", *arguments])
    except SystemExit as ended:
        code = ended.code
    found.append([int(code), said.getvalue(), sorted(os.listdir())])
    os.chdir("..")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "each.py").write_text(EACH)
    done = run_command(json.dumps([arguments for arguments, _ in MISTAKES]), cwd=folder, module="each")
    found: list[tuple[int, str, list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_4(mistakes: list[tuple[int, str, list[str]]], number: int) -> None:
    code, output, files = mistakes[number]
    assert code == 4, output
    said = [line for line in output.splitlines() if line.strip()]
    assert len(said) == 1, said
    assert MISTAKES[number][1] in said[0]
    assert files == ["empty", "file"]
