"""Two runs metric by metric: what is exact, what scatters, and what the gate makes of it."""

from __future__ import annotations

import copy
import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revbench.case import Case
from revbench.compare import Comparison, Finding, compare_folders, comparison_markdown, thresholds_of
from revbench.compare.findings import CANT_TELL
from revbench.errors import UserError
from revbench.results.journal import Journal
from revbench.results.schema import Row
from tests.conftest import Cli
from tests.report.reports import memory
from tests.results.rows import ACCELERATOR, ENVIRONMENT, make_row, write_run

STORED = Case(model="revnet-38", batch_size=16)
OURS = STORED.replace(strategy="reconstructed")
KIB = 1024


def memory_row(case: Case, extra_bytes: int = 0, **changes: Any) -> Row:
    return make_row(case=case, probe="memory", metrics=memory((8 << 20) + extra_bytes), samples={}, **changes)


def flops_row(case: Case, flops: float, **changes: Any) -> Row:
    metrics = {"step_flops": flops, "forward_flops": flops / 3, "backward_flops": 2 * flops / 3}
    return make_row(case=case, probe="flops", metrics=metrics, samples={}, **changes)


def launches(
    generator: np.random.Generator, *, factor: float = 1.0, count: int = 10, second: int = 0, noise: float = 0.01
) -> list[Row]:
    """Launches of a pair that takes turns; the machine's own state scatters by a tenth and hits both."""
    rows = []
    for repeat in range(1, count + 1):
        machine = np.exp(generator.normal(0, 0.1))
        for case, seconds in ((STORED, 0.1), (OURS, 0.14 * factor)):
            step = seconds * machine * np.exp(generator.normal(0, noise))
            metrics = {"step_seconds": step, "session": f"{second}-{repeat}", "steps_per_turn": 1, "rounds": 6}
            rows.append(make_row(
                case=case, repeat=repeat, metrics=metrics, samples={"step_seconds": [step] * 6},
                started=f"2026-01-02T03:{repeat:02}:{second:02}+00:00",
            ))  # fmt: skip
    return rows


def compare(tmp_path: Path, before: list[Row], now: list[Row], *fail_on: str, **environment: Any) -> Comparison:
    other = {**copy.deepcopy(ENVIRONMENT), **environment}
    now = [
        row if not environment else make_row(**{**vars(row), "environment_id": other["environment_id"]}) for row in now
    ]
    return compare_folders(
        write_run(tmp_path / "before", *before), write_run(tmp_path / "now", *now, environment=other), thresholds_of(fail_on)
    )  # fmt: skip


def of(found: Comparison, metric: str, case: Case = OURS) -> Finding:
    (one,) = [f for f in found.findings if f.metric == metric and f.case_id == case.id]
    return one


def test_a_tensor_of_64_kib_more_is_always_found(tmp_path: Path) -> None:
    found = compare(tmp_path, [memory_row(OURS)], [memory_row(OURS, 64 * KIB)])
    one = of(found, "peak_bytes")
    assert (one.outcome, one.gated, found.failed) == ("worse", True, True)
    assert found.lines()[0].startswith("WORSE      RevNet-38 reconstructed (float32, batch 16, 32×32, cpu): peak_bytes")
    assert not of(found, "steady_bytes").gated


def test_less_memory_is_better_and_the_same_is_the_same(tmp_path: Path) -> None:
    found = compare(tmp_path / "a", [memory_row(OURS, 64 * KIB)], [memory_row(OURS)])
    assert of(found, "peak_bytes").outcome == "better"
    assert not found.failed
    found = compare(tmp_path / "b", [memory_row(OURS), flops_row(OURS, 3e9)], [memory_row(OURS), flops_row(OURS, 3e9)])
    assert {f.outcome for f in found.findings} == {"same"}
    assert not found.failed
    assert found.verdict() == "gate against before (like hardware): 2 metrics of 1 cases, 0 worse"


def test_operations_are_exact(tmp_path: Path) -> None:
    assert compare(tmp_path, [flops_row(OURS, 3e9)], [flops_row(OURS, 3e9 + 2)]).failed


def test_a_gpu_has_a_tolerance(tmp_path: Path) -> None:
    gpu = {"accelerators": [ACCELERATOR]}
    case = OURS.replace(device="cuda")
    before = write_run(tmp_path / "a", memory_row(case), environment={**ENVIRONMENT, **gpu})
    little = write_run(tmp_path / "b", memory_row(case, 30 * KIB), environment={**ENVIRONMENT, **gpu})
    much = write_run(tmp_path / "c", memory_row(case, 100 * KIB), environment={**ENVIRONMENT, **gpu})
    assert not compare_folders(before, little).failed
    assert compare_folders(before, much).failed


def test_twice_the_time_and_more_memory_do_not_pass(tmp_path: Path) -> None:
    """A run that was doctored to this passed the gate once."""
    generator = np.random.default_rng(0)
    before = [*launches(generator), memory_row(OURS)]
    now = [*launches(generator, factor=2.0), memory_row(OURS, 4 << 20)]
    found = compare(tmp_path, before, now)
    assert {f.metric for f in found.gated if f.outcome == "worse"} == {"peak_bytes", "time_to_stored"}
    ratio = of(found, "time_to_stored")
    assert ratio.factor == pytest.approx(2.0, rel=0.05)
    assert ratio.low is not None
    assert ratio.low < 2.0 < ratio.high  # type: ignore[operator]
    assert of(found, "step_seconds").outcome == "worse"
    assert not of(found, "step_seconds").gated  # of a stored baseline only where asked


def test_time_is_gated_where_asked(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    before, now = launches(generator), launches(generator, factor=2.0)
    found = compare(tmp_path, before, now, "step_seconds @ *reconstructed* > 10%")
    assert of(found, "step_seconds").gated
    assert of(found, "step_seconds").outcome == "worse"
    assert not of(found, "step_seconds", STORED).gated


def test_few_launches_can_not_tell_a_time(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    before, now = launches(generator, count=4), launches(generator, count=4, factor=2.0)
    found = compare(tmp_path / "a", [*before, memory_row(OURS)], [*now, memory_row(OURS)])
    one = of(found, "time_to_stored")
    assert (one.outcome, one.gated) == (CANT_TELL, False)
    assert one.words == "4 and 4 launches; 5 a side can tell (--revbench-repeats=5)"
    assert not found.failed
    found = compare(tmp_path / "b", before, now, "step_seconds > 10%")
    assert found.blind
    assert "nothing could be told, so nothing passes: 4 and 4 launches" in found.why_blind()


def test_a_time_that_can_not_be_told_says_how_many_launches_would(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [[*launches(generator, noise=0.3), memory_row(OURS)] for _ in range(2)]
    one = of(compare(tmp_path, *rows), "step_seconds")
    assert one.outcome == CANT_TELL
    assert one.words is not None
    assert re.fullmatch(
        r"the interval of 10 launches reaches \d+% to either side; about \d+ would tell a change of 5%", one.words
    )


def test_unlike_machines_gate_no_time_and_are_named(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    before, now = launches(generator), launches(generator, factor=2.0)
    packages = {**ENVIRONMENT["packages"], "torch": "2.9"}
    found = compare(
        tmp_path, [*before, memory_row(OURS)], [*now, memory_row(OURS)], "step_seconds > 10%",
        packages=packages, environment_id="00000000beef",
    )  # fmt: skip
    assert found.unlike == {"PyTorch": ("2.6", "2.9")}
    assert of(found, "step_seconds").outcome == CANT_TELL
    assert of(found, "step_seconds").words == "measured on unlike machines (PyTorch)"
    assert of(found, "peak_bytes").gated  # of the same processor
    assert found.lines()[0] == "unlike machines: PyTorch 2.6 and 2.9"


def test_launches_that_took_turns_are_compared_pair_by_pair(tmp_path: Path) -> None:
    """The machine's own state, which scatters by a tenth, hits both launches of a pair."""
    generator = np.random.default_rng(1)
    states = generator.normal(0, 0.1, 10)

    def side(factor: float, second: int) -> list[Row]:
        return [
            make_row(
                case=OURS, repeat=i + 1, started=f"2026-01-02T03:{i:02}:{second:02}+00:00", samples={},
                metrics={"step_seconds": 0.1 * factor * float(np.exp(state + generator.normal(0, 0.01)))},
            )
            for i, state in enumerate(states)
        ]  # fmt: skip

    before, now = side(1.0, 10), side(1.05, 20)
    found = compare(tmp_path / "in turn", before, now, "step_seconds > 2%")
    assert of(found, "step_seconds").outcome == "worse"
    later = [make_row(**{**vars(row), "started": row.started.replace("T03", "T05")}) for row in now]
    found = compare(tmp_path / "one after the other", before, later, "step_seconds > 2%")
    assert of(found, "step_seconds").outcome == CANT_TELL


def test_limits_and_other_metrics_are_gated_where_asked(tmp_path: Path) -> None:
    before, now = [memory_row(OURS), memory_row(STORED)], [memory_row(OURS, 1 << 20), memory_row(STORED)]
    assert not compare(tmp_path / "a", before, now, "peak_bytes > 20%").failed
    assert compare(tmp_path / "b", before, now, "peak_bytes > 20%", "peak_bytes @ *reconstructed* > 8.5MiB").failed
    assert not compare(tmp_path / "c", before, now, "peak_bytes > 20%", "peak_bytes @ revnet-38,batch* > 8.5MiB").failed
    found = compare(tmp_path / "d", before, now, "rss_peak_bytes > 5%", "peak_bytes > 20%")
    assert of(found, "rss_peak_bytes").gated
    assert of(found, "rss_peak_bytes").outcome == "same"


def test_a_limit_holds_for_what_is_new_too(tmp_path: Path) -> None:
    before, now = [memory_row(STORED)], [memory_row(STORED), memory_row(OURS)]
    for number, (limit, failed) in enumerate((("8MiB", True), ("9MiB", False))):
        found = compare(tmp_path / str(number), before, now, f"peak_bytes @ *reconstructed* > {limit}")
        assert found.failed is failed
        assert of(found, "peak_bytes").before is None or not failed
        assert "–" in comparison_markdown(found)
    with pytest.raises(UserError, match="is for no case: what both runs have measured"):
        compare(tmp_path / "change", before, now, "peak_bytes @ *reconstructed* > 5%")


@pytest.mark.parametrize(("limit", "failed"), [("1.4", True), ("1.6", False)])
def test_a_limit_of_the_time_to_stored(tmp_path: Path, limit: str, failed: bool) -> None:
    """It is computed from two cases' rows, so no row has it."""
    rows = [memory_row(OURS), make_row(case=OURS, samples={"step_seconds": [0.3] * 5})]
    rows.append(make_row(case=STORED, samples={"step_seconds": [0.2] * 5}))
    found = compare(tmp_path, rows, rows, f"time_to_stored > {limit}")
    limited = next(f for f in found.findings if f.words and "its limit is" in f.words)
    assert limited.now == pytest.approx(1.5)
    assert limited.before == pytest.approx(1.5)
    assert found.failed is failed


def test_what_is_missing_and_new_is_named(tmp_path: Path) -> None:
    found = compare(tmp_path, [memory_row(OURS), memory_row(STORED)], [memory_row(OURS), flops_row(OURS, 1e9)])
    assert found.missing == ["memory of revnet-38,batch_size=16"]
    assert found.new == ["flops of revnet-38,strategy=reconstructed,batch_size=16"]
    assert "1 of the baseline's measurements are missing" in found.verdict()


def test_a_status_that_changed_stands_first(tmp_path: Path) -> None:
    oom = memory_row(OURS)
    oom = make_row(**{**vars(oom), "status": "oom", "metrics": {}, "message": "no memory"})
    found = compare(tmp_path / "a", [memory_row(OURS), memory_row(STORED)], [oom, memory_row(STORED, 1 << 20)])
    assert [(f.metric, f.outcome) for f in found.findings[:2]] == [("status", "worse"), ("peak_bytes", "worse")]
    found = compare(tmp_path / "b", [oom, memory_row(STORED)], [memory_row(OURS), memory_row(STORED)])
    assert of(found, "status").outcome == "better"
    assert not found.failed


def test_a_gate_that_compares_nothing_fails(tmp_path: Path, cli: Cli) -> None:
    before = write_run(tmp_path / "before", make_row(case=OURS))
    now = write_run(tmp_path / "now", make_row(case=OURS))
    code, out, err = cli("compare", str(before), str(now))
    assert code == 2
    assert "nothing that is gated was measured in both before and now" in err
    assert "measure memory, flops or drift" in err
    assert "0 worse" in out


def test_the_command(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = str(write_run(tmp_path / "before", memory_row(OURS), flops_row(OURS, 1e9)))
    good = str(write_run(tmp_path / "good", memory_row(OURS), flops_row(OURS, 1e9)))
    bad = str(write_run(tmp_path / "bad", memory_row(OURS, 1 << 20), flops_row(OURS, 1e9)))
    code, out, _ = cli("compare", before, good)
    assert (code, out) == (0, "gate against before (like hardware): 2 metrics of 1 cases, 0 worse\n")
    code, out, _ = cli("compare", before, good, bad)
    assert code == 1
    assert "WORSE" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("gate "))
    code, out, _ = cli("compare", before, bad, "--json")
    assert code == 1
    assert json.loads(out)["failed"] is True
    code, out, _ = cli("compare", before, good, bad, "--json")
    assert [one["failed"] for one in json.loads(out)] == [False, True]
    code, out, _ = cli("compare", before, bad, "--markdown")
    assert out.startswith("### ❌ gate against before")
    assert cli("compare", before, bad, "--fail-on", "peak_bytes > 20%")[0] == 0
    (tmp_path / "pyproject.toml").write_text('[tool.revbench.gate]\nfail-on = ["peak_bytes > 20%"]\n')
    monkeypatch.chdir(tmp_path)
    assert cli("compare", before, bad)[0] == 0
    for arguments, words in (
        ((before, before), "is compared with itself"),
        ((before, good, "--fail-on", "speed > 3%"), "metric 'speed'"),
        ((before, good, "--fail-on", "peak_bytes @ other* > 3%"), "is for no case"),
        ((before, str(tmp_path / "nowhere")), "nowhere"),
    ):
        code, _, err = cli("compare", *arguments)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


def test_markdown_is_short_and_harmless(tmp_path: Path) -> None:
    evil = Case(model="<img src=x>:`|@team", batch_size=1)
    cases = [OURS.replace(batch_size=i) for i in range(1, 9)]
    before = [*(memory_row(case) for case in cases), memory_row(evil)]
    now = [*(memory_row(case, i << 20) for i, case in enumerate(cases, 1)), memory_row(evil, -(1 << 20))]
    text = comparison_markdown(compare(tmp_path, before, now))
    head, _, folded = text.partition("<details>")
    assert head.splitlines()[0] == "### ❌ gate against before (like hardware): 9 metrics of 9 cases, 8 worse, 1 better"
    assert head.count("**worse**") == 5
    assert "batch 8" in head.split("\n| ")[3]  # the worst first
    assert "and 3 more below." in head
    assert folded.count("**worse**") == 3
    assert "<img" not in text
    assert "@team" not in text


def test_markdown_has_a_picture_that_shows_anywhere(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    before, now = launches(generator), launches(generator, factor=1.3, second=1)
    text = comparison_markdown(compare(tmp_path, [*before, memory_row(OURS, 1 << 20)], [*now, memory_row(OURS)]))
    picture = text.split("```text\n")[1].split("\n```")[0].splitlines()
    scale = picture[0].split()
    assert scale[:3] + scale[4:] == [scale[0], "×", "1", scale[4], "×"]
    assert float(scale[0]) == pytest.approx(1 / float(scale[4]), abs=0.02)
    (ratio,) = (line for line in picture if "time_to_stored" in line)
    (peak,) = (line for line in picture if ": peak_bytes" in line)
    middle = 20
    assert picture[0][middle] == "1"
    assert ratio.index("●") > middle > peak.index("●")
    assert ratio[middle] == "│"
    assert "─" in ratio, "the interval"
    assert "─" not in peak, "bytes have none"
    assert "```" not in comparison_markdown(compare(tmp_path / "same", [memory_row(OURS)], [memory_row(OURS)]))


def test_the_report_has_the_comparison(tmp_path: Path, cli: Cli) -> None:
    before = str(write_run(tmp_path / "before", memory_row(OURS), flops_row(OURS, 1e9)))
    bad = str(write_run(tmp_path / "bad", memory_row(OURS, 1 << 20), flops_row(OURS, 1e9)))
    code, _, err = cli("report", bad, "--baseline", before)
    assert (code, err) == (0, "")
    text = (tmp_path / "bad" / "report.md").read_text()
    assert "Gate against before (like hardware): 2 metrics of 1 cases, 1 worse." in text
    (worse,) = (line for line in text.splitlines() if line.startswith("| worse |"))
    assert "8.0 MiB | 9.0 MiB | 1.12 ×" in worse
    assert "What stayed the same against before" in text
    code, _, err = cli("report", before, bad, "--baseline", before, "--output", "both")
    assert code == 2
    assert "--baseline is of one run" in err


def test_a_run_that_is_being_written_is_not_compared(tmp_path: Path, cli: Cli) -> None:
    for name in ("before", "now"):
        write_run(tmp_path / name, memory_row(OURS))
    with closing(Journal(tmp_path / "before", resume=True)):
        for order in (("before", "now"), ("now", "before")):
            code, _, err = cli("compare", *(str(tmp_path / name) for name in order))
            assert (code, err.count("\n")) == (2, 1)
            assert f"a process is still writing to {tmp_path / 'before'}" in err
    assert cli("compare", str(tmp_path / "before"), str(tmp_path / "now"))[0] == 0
