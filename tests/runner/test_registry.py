"""What can be measured: our declarations, and those of other packages, the broken ones included."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.probes import Measurement, Metric, Probe
from revbench.report.document import Table
from revbench.report.evidence import Evidence
from revbench.report.sections.other_probes import section
from revbench.results.runs import Run, read_run
from revbench.results.schema import KEYED_WITHOUT_OPTIONS
from revbench.results.wire import WORD_COLUMNS
from revbench.runner import registry as module
from revbench.runner.client import WorkerServer
from revbench.runner.registry import OURS, offered_names, probe_of, registry
from revbench.runner.session import result_of
from revbench.runner.worker import check_measurement, check_measurements
from revbench.units import COUNT
from tests.conftest import ROOT, Cli
from tests.results.rows import ENVIRONMENT, make_row

HEAD = "from revbench.probes import Metric, Probe\nfrom revbench.units import COUNT\n"
GOOD = (
    HEAD + "PROBE = Probe(name='mine', function='theirs:measure', sentence='something',"
    " metrics=[Metric('count', COUNT, 'of something', head='Things')])\n"
)


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package on the path as an installer would: its module, and its entry points."""
    names: list[str] = []

    def put(package: str, source: str, *, name: str = "mine") -> None:
        site = tmp_path / "site"
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[revbench.probes]\n{name} = {package}:PROBE\n")
        (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PYTHONPATH", str(site))
        monkeypatch.setattr("revbench.runner.opening.WorkerServer", WorkerServer)  # one that has this path
        names.append(package)
        importlib.invalidate_caches()
        module.registry.cache_clear()

    yield put
    for package in names:
        sys.modules.pop(package, None)
    module.registry.cache_clear()


@pytest.mark.parametrize("probe", OURS.values(), ids=lambda probe: probe.name)
def test_our_declarations_hold(probe: Probe) -> None:
    assert probe.check() is probe
    assert probe.sentence[0].islower() or probe.sentence.startswith("NVML")
    assert not probe.sentence.endswith(".")
    for metric in probe.metrics:
        assert metric.probe == probe.name
        assert metric.about, metric.name
        assert (metric.better is None) or metric.kind != "circumstance", metric.name
    assert set(probe.series) & {"phase", "level", "name"} <= set(WORD_COLUMNS)


def test_what_goes_on_where_it_was_is_recognised_without_its_options() -> None:
    assert {name for name, probe in OURS.items() if probe.resumable} == KEYED_WITHOUT_OPTIONS


def test_a_metric_that_nobody_declared_is_an_error() -> None:
    with pytest.raises(UserError, match="unknown metric of the probe time 'step_second'; did you mean 'step_seconds'"):
        OURS["time"]["step_second"]


def test_a_probe_of_another_package_is_found(install: Install) -> None:
    install("theirs", GOOD)
    found = registry()
    assert found.packages == {"mine": "theirs"}
    assert not found.problems
    assert probe_of("mine")["count"].title == "Things"
    assert list(found.probes)[: len(OURS)] == list(OURS)
    assert offered_names()[-1] == "mine"
    assert result_of(make_row(probe="mine", metrics={"count": 3}, samples={})) == "Things 3"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise RuntimeError('boom')", "can't be imported: RuntimeError: boom"),
        ("import no_such_module", "can't be imported: ModuleNotFoundError"),
        ("OTHER = 1", "can't be imported: AttributeError"),
        ("PROBE = 3", "is a int, not a revbench.probes.Probe"),
        (GOOD.replace("name='mine'", "name='time'"), "the name 'time' is taken, by the package revbench"),
        (GOOD.replace("metrics=[", "metrics=[Metric('count', COUNT), "), "declares the metric count twice"),
        (GOOD.replace("name='mine'", "name='My Probe'"), "can't be called 'My Probe'"),
        (GOOD.replace("theirs:measure", "theirs.measure"), "is no package.module:function"),
        (GOOD.replace("sentence=", "lines=['{size} found'], sentence="), "unknown metric of the probe mine 'size'"),
        (GOOD.replace("sentence=", "lines=['{count'], sentence="), "the line '{count': "),
        (GOOD.replace("sentence=", "lines=['{count:d}'], sentence="), "a line has {count} alone, without a format"),
        (GOOD.replace("sentence=", "lines=['{}'], sentence="), "unknown metric of the probe mine ''"),
        (GOOD.replace("sentence=", "lines='{count}', sentence="), "lines='{count}' is no list of strings"),
        (GOOD.replace("sentence=", "series=[3], sentence="), "series=[3] is no list of strings"),
        (GOOD.replace("sentence=", "samples=3, sentence="), "TypeError: 'int' object is not iterable"),
        (GOOD.replace("sentence='something'", "sentence=None"), "sentence=None is no sentence"),
        (GOOD.replace("sentence=", "options_of_launch=lambda r: 1 / 0, sentence="), "options_of_launch(1) fails: Zero"),
        (GOOD.replace("COUNT,", "'bytes',"), "the unit of count is no revbench.units.Unit: 'bytes'"),
        (GOOD.replace("head=", "kind='size', head="), "kind='size' of count is none of ('count', "),
        (GOOD.replace("head=", "better='more', head="), "better='more' of count is none of"),
        (GOOD.replace("'count'", "'batch_size'"), "can't be called 'batch_size': every row has a column of it"),
        (GOOD.replace("name='mine'", "name=3"), "a probe can't be called 3"),
        (
            GOOD.replace("name='mine'", "name='other'"),
            "its entry point is called 'mine'; call it 'other', as the probe",
        ),
        ("import sys\nsys.exit()", "can't be imported: SystemExit"),
    ],
)
def test_a_declaration_that_can_not_be_used_is_one_line_with_its_package(
    install: Install, source: str, word: str
) -> None:
    install("theirs", source)
    found = registry()
    (problem,) = found.problems
    assert problem.startswith("package theirs declares a probe that can't be used: ")
    assert word in problem
    assert "\n" not in problem
    assert dict(found.probes) == OURS
    if "name='mine'" in source:
        with pytest.raises(UserError, match=r"unknown probe 'mine'.*package theirs"):
            probe_of("mine")


def test_two_packages_can_not_have_one_name(install: Install) -> None:
    install("theirs", GOOD)
    install("others", GOOD)
    found = registry()
    assert len(found.packages) == 1
    assert f"the name 'mine' is taken, by the package {found.packages['mine']}" in found.problems[0]


def test_the_command_goes_on_and_says_so(install: Install, cli: Cli) -> None:
    install("theirs", "raise RuntimeError('boom')")
    code, out, err = cli("run", "revnet-38", "--probe", "parameters", "--output", "run")
    assert code == 0
    assert "package theirs declares a probe that can't be used" in err
    assert "464,890 parameters" in out


@pytest.mark.parametrize(
    ("returned", "word"),
    [
        (3, "it returned a int, not a revbench.probes.Measurement"),
        (Measurement({"count": [1]}), r"it returned count=\[1\], which is no number and no word"),  # type: ignore[dict-item]
        (Measurement({"count": True}), "it returned count=True, which is no number"),
        (Measurement({"cuont": 1}), "it returned a metric 'cuont' that it does not declare"),
        (Measurement({"count": 1}, {"size": [1.0]}), "it returned samples of 'size'"),
        (Measurement({"count": 1}, {"count": ["a"]}), "it returned samples of count that are no numbers"),  # type: ignore[list-item]
        (Measurement({"count": 1}, series={"a": [1], "b": ["x"]}), "it returned a series that is none"),
        (Measurement({"count": 1}, series={"a": [1], "b": [1, 2]}), "it returned a series that is none"),
    ],
)
def test_a_measurement_that_is_none_is_refused(returned: object, word: str) -> None:
    probe = Probe(name="mine", function="a:b", sentence="s", metrics=[Metric("count", COUNT)])
    check_measurement(
        Measurement({"count": 1, "count_reason": "x"}, {"count": [1.0]}, {"name": ["a"], "n": [1]}), probe
    )
    with pytest.raises((TypeError, ValueError), match=word):
        check_measurement(returned, probe)


def test_what_a_probe_raises_is_a_row_with_its_package(install: Install, cli: Cli) -> None:
    """Also our own kind of error, which would end the run if one of ours raised it."""
    install(
        "theirs",
        GOOD
        + "\ndef measure(workload, *, progress):\n    from revbench.errors import UserError\n    raise UserError('no')\n",
    )
    code, out, err = cli("run", "revnet-38", "--strategy", "stored", "--probe", "mine", "--probe", "parameters")
    assert code == 0, err
    assert "crashed: probe mine of the package theirs: RuntimeError: no" in out
    assert "464,890 parameters" in out


@pytest.mark.parametrize(
    ("returned", "word"),
    [
        (Measurement({}), "it returned a Measurement, not a list"),
        ([Measurement({})], "1 measurements of 2 cases"),
        ([1, 2], "a int"),
    ],
)
def test_a_group_gets_a_measurement_of_each_case(returned: object, word: str) -> None:
    probe = Probe(name="mine", function="a:b", sentence="s", metrics=[], takes_group=True)
    check_measurements([Measurement({}), Measurement({})], probe, 2)
    with pytest.raises((TypeError, ValueError), match=word):
        check_measurements(returned, probe, 2)


def test_a_line_that_can_not_be_made_says_so(install: Install) -> None:
    install("theirs", GOOD.replace("COUNT,", "Unit('', lambda value: value.no),").replace("COUNT", "Unit"))
    assert not registry().problems
    shown = result_of(make_row(probe="mine", metrics={"count": 3}, samples={}))
    assert shown.startswith("measured, but its line can't be made: AttributeError: ")


@pytest.mark.parametrize("probe", ["fit", "training"])
def test_what_needs_more_than_a_case_is_no_option_of_the_command(cli: Cli, probe: str) -> None:
    code, _, err = cli("run", "revnet-38", "--probe", probe)
    assert code == 2
    assert f"--probe {probe} can't be measured so: it needs a memory limit, or trains" in err


def test_rows_have_what_was_declared() -> None:
    """Those that are committed: a few thousand, of every probe that needs no GPU."""
    seen = set()
    for file in (ROOT / "reports" / "reference").glob("*/*/rows.jsonl"):
        for row in read_run(file.parent).rows:
            seen.add(row.probe)
            assert [name for name in row.metrics if not OURS[row.probe].declares(name)] == []
            assert [n for n in row.samples if not (OURS[row.probe].declares(n) or n in OURS[row.probe].samples)] == []
    assert len(seen) >= 10


def test_rows_of_a_probe_that_is_not_installed_have_a_table(tmp_path: Path) -> None:
    case = Case(model="revnet-38")
    row = make_row(
        case=case, probe="gone. away", metrics={"count": 3, "kind": "<b>", "size_reason": "x", "size": None}, samples={}
    )
    run = Run(tmp_path, [dataclasses.replace(row, environment_id="e")], {"e": ENVIRONMENT})
    found = section(Evidence(run, "e"))
    assert found is not None
    (table,) = found.blocks
    assert isinstance(table, Table)
    assert table.columns == ("Network", "Strategy", "Case", "count", "kind")
    assert table.rows[0][3:] == ["3", "<b>"]
    assert "not installed here" in table.notes[0]
