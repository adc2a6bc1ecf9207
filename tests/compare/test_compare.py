"""The gate: what it lets pass, what it stops, and what it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.compare import Comparison, compare_folders
from revbench.compare.findings import CANT_TELL
from revbench.compare.gate import CaseRows
from revbench.compare.growth import SIGNIFICANCE, can_tell, grew, told_by_moments
from revbench.errors import UserError
from revbench.probes.declared import DRIFT
from revbench.report import Evidence
from revbench.report.build import build_report
from revbench.results.journal import Journal
from revbench.results.runs import Run, read_run
from revbench.results.schema import Row
from tests.compare.runs import BLOCKS, CASE, NORMAL, drift_row, many, scaled, write
from tests.results.rows import ACCELERATOR, ENVIRONMENT, make_row, write_run


def compare(tmp_path: Path, now: Row, **settings: Any) -> Comparison:
    return compare_folders(write(tmp_path / "before", drift_row()), write(tmp_path / "now", now, **settings))


def outcomes(found: Comparison) -> dict[str, str]:
    return {finding.metric: finding.outcome for finding in found.findings}


def test_the_same_run_holds(tmp_path: Path) -> None:
    found = compare(tmp_path, drift_row())
    assert not found.failed
    assert found.same_hardware
    assert outcomes(found) == {
        "activation_error_epsilons": "same", "smooth_amplification": "same", "smooth_error_epsilons": "same",
        "angle_degrees": CANT_TELL, "flips": CANT_TELL,
    }  # fmt: skip
    assert found.lines()[-1] == "gate against before (like hardware): 3 metrics of 1 cases, 0 worse"


@pytest.mark.parametrize("metric", ["activation_error_epsilons", "smooth_amplification", "smooth_error_epsilons"])
def test_what_grew_is_named_with_case_block_and_factor(tmp_path: Path, metric: str) -> None:
    blocks = {**BLOCKS, "trunk.1": 3e-6} if metric.startswith("activation") else None
    smooth = None if metric.startswith("activation") else {"trunk.1": 2e-5}
    found = compare(tmp_path, drift_row(**scaled(metric, 4.0)), blocks=blocks, smooth=smooth)
    assert found.failed
    assert {k for k, v in outcomes(found).items() if v == "worse"} == {metric}
    line = found.lines()[0]
    assert line.startswith(f"WORSE      RevNet-38 reconstructed (float32, batch 16, 32×32, cpu): {metric}")
    assert "(4.00 ×; found from 1." in line
    assert line.endswith("most in trunk.1 (10.00 ×)")


def test_angle_flips_and_time_are_shown_and_not_gated(tmp_path: Path) -> None:
    before = write(tmp_path / "before", drift_row(), make_row(case=CASE))
    now = write(
        tmp_path / "now", drift_row(**scaled("angle_degrees", 1e4), **scaled("flips", 100)),
        make_row(case=CASE, metrics={**make_row().metrics, "step_seconds": 50.0}),
    )  # fmt: skip
    found = compare_folders(before, now)
    assert not found.failed
    shown = {finding.metric: finding.factor for finding in found.findings if not finding.gated}
    assert shown["step_seconds"] == pytest.approx(100.0)
    assert shown["angle_degrees"] == pytest.approx(1e4)


def test_small_growth_and_small_amounts_pass(tmp_path: Path) -> None:
    assert not compare(tmp_path / "a", drift_row(**scaled("activation_error_epsilons", 1.2))).failed
    tiny = {"activation_error_epsilons": many([0.1, 0.11, 0.1, 0.12])}
    before = write(tmp_path / "before", drift_row(**tiny))
    now = write(tmp_path / "now", drift_row(activation_error_epsilons=many([0.5, 0.51, 0.5, 0.52])))
    assert not compare_folders(before, now).failed  # five times as much, but less than an epsilon


def test_growth_within_the_noise_passes(tmp_path: Path) -> None:
    wide = many([1.0, 30.0, 5.0, 60.0])
    before = write(tmp_path / "before", drift_row(activation_error_epsilons=wide))
    now = write(tmp_path / "now", drift_row(activation_error_epsilons=[2 * v for v in wide]))
    found = compare_folders(before, now)
    assert not found.failed
    finding = next(f for f in found.findings if f.metric == "activation_error_epsilons")
    assert finding.noise_factor is not None
    assert finding.noise_factor > 2  # and it says what it could have told


def test_a_block_that_hides_behind_a_worse_one(tmp_path: Path) -> None:
    found = compare(tmp_path, drift_row(), blocks={**BLOCKS, "trunk.2": 6e-7})
    assert found.failed
    assert "block trunk.2 grew 8.57 ×, behind the worst one" in found.lines()[0]


def test_one_draw_a_side_can_not_tell(tmp_path: Path) -> None:
    one = drift_row(**{name: values[:1] for name, values in NORMAL.items()})
    found = compare_folders(write(tmp_path / "before", one), write(tmp_path / "now", one))
    assert found.failed
    assert found.blind
    assert set(outcomes(found).values()) == {CANT_TELL}
    assert "can't tell a change from noise" in found.lines()[0]
    assert "3 can't be told" in found.lines()[-1]
    assert "nothing could be told, so nothing passes" in found.lines()[-1]
    assert compare(tmp_path / "against twelve", one).blind


def test_draws_that_scatter_can_not_be_told_and_are_not_good(tmp_path: Path) -> None:
    wild = many([1.0, 90.0, 7.4, 0.1])
    before = write(tmp_path / "before", drift_row(smooth_amplification=wild))
    found = compare_folders(before, write(tmp_path / "now", drift_row(smooth_amplification=wild[1:])))
    assert not found.failed
    assert outcomes(found)["smooth_amplification"] == CANT_TELL
    finding = next(f for f in found.findings if f.metric == "smooth_amplification")
    assert "scatter so much that less than" in str(finding)


def test_chance_in_many_blocks_raises_no_alarm() -> None:
    """Blocks are looked at one by one, so chance has many tries: it may not win in thousands of comparisons."""
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        before, now = (generator.normal(0, 0.4, (30, n)) for n in (30, 6))
        for a, b in zip(before, now, strict=True):
            told, _ = told_by_moments(b.mean() - a.mean(), 30, a.var(ddof=1), 6, b.var(ddof=1), SIGNIFICANCE / 30)
            alarms += told
    assert alarms <= 1  # 0.05 expected


@pytest.mark.parametrize(("n", "m"), [(30, 4), (30, 6), (30, 15), (15, 15)])
def test_growth_by_the_factor_that_is_named_is_found_in_90_of_100(n: int, m: int) -> None:
    generator = np.random.default_rng(1)
    _, factor = told_by_moments(0.0, n, 0.01, m, 0.01, SIGNIFICANCE)
    found = 0
    for _ in range(400):
        old, new = (np.exp(generator.normal(0, 0.1, k)) for k in (n, m))
        found += grew(old.tolist(), (factor * new).tolist())[0]
    assert found >= 0.83 * 400


def contaminated(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Normal numbers, one of ten of which is ten times as far out."""
    return generator.normal(0, 1, shape) * np.where(generator.random(shape) < 0.1, 10, 1)


def exponential(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return generator.exponential(1, shape)


SHAPES = {
    "normal": lambda g, shape: g.normal(0, 1, shape), "narrow": lambda g, shape: g.normal(0, 0.2, shape),
    "outliers": contaminated, "few outliers": lambda g, shape: 0.2 * contaminated(g, shape), "skewed": exponential,
    "skewed the other way": lambda g, shape: -exponential(g, shape),
    "flips": lambda g, shape: g.normal(0, 0.1, shape) + np.where(g.random(shape) < 0.3, 5, 0),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(30, 4), (30, 6), (30, 15), (30, 30), (15, 6), (15, 15)])
@pytest.mark.parametrize(
    ("before", "now"),
    [
        *((name, name) for name in SHAPES), ("normal", "narrow"), ("narrow", "normal"), ("few outliers", "outliers"),
        ("outliers", "few outliers"),
    ],
)  # fmt: skip
def test_chance_is_taken_for_growth_once_in_ten_thousand(before: str, now: str, n: int, m: int) -> None:
    """Whatever the shape of the distribution, and where the two spread five times unlike; 60,000 comparisons each."""
    generator = np.random.default_rng(3)
    count = 60_000
    old, new = 0.3 * SHAPES[before](generator, (count, n)), 0.3 * SHAPES[now](generator, (count, m))
    alarms = sum(grew(np.exp(a).tolist(), np.exp(b).tolist())[0] for a, b in zip(old, new, strict=True))
    print(f"{before}, {now}, {n} and {m} draws: {alarms} of {count}")
    assert alarms <= 14  # 6 are expected at most; more than 14 by chance once in 700


def test_what_so_many_draws_can_tell() -> None:
    """Complete separation by chance must be rarer than one in ten thousand."""
    for n, m in ((30, 4), (15, 5), (6, 11)):
        assert can_tell(n, m)
        assert can_tell(m, n)
        assert not can_tell(n, m - 1)
    assert not can_tell(10**6, 1)


def test_across_hardware_only_what_is_the_same_everywhere(tmp_path: Path) -> None:
    other = {**ENVIRONMENT, "cpu": {**ENVIRONMENT["cpu"], "model": "Another CPU"}}
    worse = drift_row(**scaled("smooth_error_epsilons", 9.0))
    found = compare(tmp_path / "a", worse, environment=other)
    assert not found.same_hardware
    assert not found.failed
    assert "smooth_error_epsilons" not in outcomes(found)
    assert "unlike hardware" in found.lines()[-1]
    assert compare(tmp_path / "b", drift_row(**scaled("smooth_amplification", 9.0)), environment=other).failed


def test_a_gpu_against_a_cpu(tmp_path: Path) -> None:
    card = ACCELERATOR
    other = {**ENVIRONMENT, "accelerators": [card]}
    now = drift_row(CASE.replace(device="cuda:1"), **scaled("activation_error_epsilons", 5.0))
    found = compare(tmp_path, now, environment=other)
    assert not found.same_hardware
    assert found.failed


def test_what_can_not_be_measured_any_more(tmp_path: Path) -> None:
    crashed = make_row(
        case=CASE, probe="drift", status="crashed", metrics={}, samples={}, message="FloatingPointError: nan"
    )
    found = compare(tmp_path / "a", crashed)
    assert found.failed
    assert "was ok, now crashed in 1 of 1 launches: FloatingPointError: nan" in found.lines()[0]
    traced = drift_row(metrics={"trace": "stem.1.running_mean"})
    assert "leaves stem.1.running_mean otherwise" in compare(tmp_path / "b", traced).lines()[0]
    missing = make_row(
        case=CASE, probe="drift", metrics={}, samples={k: v for k, v in NORMAL.items() if k != "smooth_amplification"}
    )
    assert "it can't be had any more" in compare(tmp_path / "c", missing).lines()[0]


def test_a_launch_that_was_measured_again_is_as_good_as_any(tmp_path: Path) -> None:
    good = drift_row()
    died = make_row(case=CASE, probe="drift", status="crashed", metrics={}, samples={}, options=dict(good.options))
    now = write(tmp_path / "now", died, good)
    found = compare_folders(write(tmp_path / "before", good), now)
    assert not any("crashed" in line for line in found.lines())
    assert not [
        block for section in build_report([now]).sections for block in section.blocks if "figures" in section.title
    ]


def test_a_launch_that_fails_now_is_worse(tmp_path: Path) -> None:
    good, bad = drift_row(), make_row(
        case=CASE, probe="drift", status="crashed", metrics={}, samples={}, message="a\n::error:: b\x1b[2J", repeat=2
    )  # fmt: skip
    found = compare_folders(write(tmp_path / "before", good), write(tmp_path / "now", good, bad))
    assert found.failed
    assert "was ok, now crashed in 1 of 2 launches: a ::error:: b\\x1b[2J" in found.lines()[0]
    assert "\n" not in found.lines()[0]


def test_what_another_machine_lacks_is_no_regression_but_nothing_is_compared(tmp_path: Path) -> None:
    other = {**ENVIRONMENT, "cpu": {**ENVIRONMENT["cpu"], "model": "Another CPU"}}
    lacking = make_row(
        case=CASE, probe="drift", status="unsupported", metrics={}, samples={}, message="no such arithmetic"
    )
    found = compare(tmp_path, lacking, environment=other)
    assert found.blind
    assert not found.gated
    assert "nothing that is gated was measured in both before and now (was ok, now unsupported" in found.why_blind()


def test_launches_with_the_same_draws_are_one(tmp_path: Path) -> None:
    row = drift_row()
    row = dataclasses.replace(row, metrics={**row.metrics, "angle_degrees": 1.0})
    twice = [dataclasses.replace(row, repeat=i, options={"draws": 12, "first_draw": 0}) for i in (1, 2)]
    rows = CaseRows(Run(tmp_path), twice)
    assert len(rows.samples(DRIFT["angle_degrees"])) == 12
    evidence = Evidence(read_run(write_run(tmp_path / "run", *twice)), ENVIRONMENT["environment_id"])
    assert len(evidence.samples(row.case, DRIFT["angle_degrees"])) == 12
    further = dataclasses.replace(row, repeat=3, options={"draws": 12, "first_draw": 12})
    evidence = Evidence(read_run(write_run(tmp_path / "further", *twice, further)), ENVIRONMENT["environment_id"])
    assert len(evidence.samples(row.case, DRIFT["angle_degrees"])) == 24


def run_on(folder: Path, *measured: tuple[str, Row]) -> Path:
    """Rows, each measured on a machine of its own."""
    journal = Journal(folder)
    for i, (machine, row) in enumerate(measured):
        accelerators = [{**ACCELERATOR, "name": machine}] if "GPU" in machine else []
        identity = {"environment_id": f"{i:012}", "cpu": {**ENVIRONMENT["cpu"], "model": machine}}
        journal.add_environment({**ENVIRONMENT, **identity, "accelerators": accelerators})
        journal.add_row(dataclasses.replace(row, environment_id=f"{i:012}"))
    journal.close()
    return folder


def test_hardware_is_that_of_each_case(tmp_path: Path) -> None:
    other = CASE.replace(dtype="float64")
    before = run_on(tmp_path / "before", ("A", drift_row()), ("B", drift_row(other)))
    swapped = run_on(tmp_path / "swapped", ("B", drift_row()), ("A", drift_row(other)))
    found = compare_folders(before, swapped)
    assert not found.same_hardware
    assert "smooth_error_epsilons" not in outcomes(found)
    gpu = CASE.replace(device="cuda")
    both = run_on(
        tmp_path / "both", ("A", drift_row()), ("A GPU", drift_row(gpu, **scaled("smooth_error_epsilons", 9.0)))
    )
    now = run_on(tmp_path / "now", ("A", drift_row(**scaled("smooth_error_epsilons", 9.0))))
    found = compare_folders(both, now)
    assert found.same_hardware
    assert outcomes(found)["smooth_error_epsilons"] == "worse"  # a GPU's draws do not hide it


def test_strangers_rows_are_no_crash_and_plain_json(tmp_path: Path) -> None:
    bare = make_row(case=CASE, probe="drift", metrics={}, samples={"activation_error_epsilons": [0.0] * 12})
    grown = make_row(case=CASE, probe="drift", metrics={}, samples={"activation_error_epsilons": [9.0, 8.0, 7.0] * 4})
    found = compare_folders(write(tmp_path / "before", bare), write(tmp_path / "now", grown))
    assert found.failed  # from exact to not
    json.dumps(found.to_json(), allow_nan=False)


def test_nothing_in_common_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"no case in common, .* measure what the baseline has, as drift of revnet-38",
    ):
        compare(tmp_path, drift_row(CASE.replace(batch_size=17)))


def test_cases_that_were_not_measured_are_counted(tmp_path: Path) -> None:
    before = write(tmp_path / "before", drift_row(), drift_row(CASE.replace(dtype="float64")))
    found = compare_folders(before, write(tmp_path / "now", drift_row()))
    assert found.missing == ["drift of revnet-38,strategy=reconstructed,dtype=float64,batch_size=16"]
    assert "1 of the baseline's measurements are missing" in found.lines()[-1]


@given(st.lists(st.floats(1e-12, 1e12), min_size=2, max_size=40), st.integers(0, 100))
def test_values_against_themselves_never_grew(values: list[float], turn: int) -> None:
    turn %= len(values)
    assert grew(values, values[turn:] + values[:turn])[0] is False


@given(
    st.lists(st.floats(0.9, 1.1), min_size=3, max_size=40), st.lists(st.floats(0.9, 1.1), min_size=3, max_size=40),
    st.floats(1.0, 10.0),
)  # fmt: skip
def test_what_grew_more_grew_too(old: list[float], new: list[float], factor: float) -> None:
    significant, noise = grew(old, new)
    assert noise >= 1.0
    if significant:
        assert grew(old, [factor * value for value in new])[0]
