"""What the report says of drift, from rows that say what is wanted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from revbench.case import Case
from revbench.report.build import build_report
from revbench.report.document import Report, Table
from revbench.results.schema import Row
from tests.report.reports import figures, report_of
from tests.results.rows import Columns, make_row, write_run

REVNET = Case(model="revnet-38", strategy="reconstructed", batch_size=16)
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "bfloat16": 2.0**-7}


def chain(blocks: int, dtype: str) -> Case:
    return Case(
        model=f"revbench.peers:chain(kind=basic,blocks={blocks})", strategy="reconstructed", dtype=dtype, image_size=8,
        batch_size=4,
    )  # fmt: skip


def samples(dtype: str, blocks: int) -> dict[str, list[float]]:
    smooth = [20 * blocks * EPSILON[dtype] * factor for factor in (0.9, 1.0, 1.1)]
    flips = [0.0, 1.0, 5.0] if dtype == "float32" else [0.0] * 3
    found = {
        "smooth_relative_error": smooth,
        "smooth_error_epsilons": [error / EPSILON[dtype] for error in smooth],
        "relative_error": [error + 0.01 * flip for error, flip in zip(smooth, flips, strict=True)],
        "flips": flips, "stored_flips": flips,
        "activation_error": [7 * blocks * EPSILON[dtype]] * 3, "activation_error_epsilons": [7.0 * blocks] * 3,
    }  # fmt: skip
    found["angle_degrees"] = [math.degrees(error) for error in found["relative_error"]]
    exact = dtype == "float64"
    found["stored_angle_degrees"] = [0.0 if exact else angle / 2 for angle in found["angle_degrees"]]
    found["smooth_stored_relative_error"] = [0.0 if exact else error / 2 for error in smooth]
    if not exact:
        found["smooth_amplification"] = [1.5, 2.0, 2.5]
    return found


def blocks_series(count: int, dtype: str, *, gap: int | None = None) -> dict[str, list[Any]]:
    errors = [None if i == gap else EPSILON[dtype] * 2.0 ** (count - i) for i in range(count)]
    return {
        "level": ["block"] * count + ["tensor"],
        "name": [f"chain.blocks.{i}" for i in range(count)] + ["chain.blocks.0.f.0.weight"],
        "activation_error": [*errors, None],
        "activation_error_low": [*errors, None],
        "activation_error_high": [*errors, None],
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: list[Row | tuple[Row, Columns]] = []
    cases = [(REVNET.replace(dtype=dtype), 9) for dtype in ("float32", "float64")]
    cases += [(chain(blocks, dtype), blocks) for dtype in EPSILON for blocks in (9, 36)]
    for case, blocks in cases:
        found = samples(case.dtype, blocks)
        metrics: dict[str, Any] = {name: values[1] for name, values in found.items()}
        word = "unsafe" if case.dtype == "bfloat16" else "safe"
        metrics |= {
            "draws": 3, "worst_tensor": "head.4.bias", "worst_tensor_angle_degrees": 1.5, "verdict": word,
            "verdict_words": f"{word}: for these {blocks} blocks", "activation_growth_per_block": 1.25,
            "breakdown_block": "chain.blocks.4" if word == "unsafe" else None,
        }  # fmt: skip
        columns = blocks_series(blocks, case.dtype, gap=3 if case.model == "revnet-38" else None)
        rows.append((make_row(case=case, probe="drift", metrics=metrics, samples=found), columns))
    stability = {
        "inverse_condition": 3.0, "inverse_condition_largest": 9.0,
        **{f"lipschitz_{name}{end}": value for name in ("f", "g", "inverse") for end, value in (("", 2.0), ("_largest", 8.0))},
        "predicted_activation_error": 1e-6, "bounded_activation_error": 1e-3, "blocks": 36,
    }  # fmt: skip
    for case in (REVNET, chain(36, "float32")):
        columns = blocks_series(36, "float32")
        columns["predicted_activation_error"] = columns["activation_error"]
        rows.append((make_row(case=case, probe="lipschitz", metrics=stability, samples={}), columns))
    same = {"runs": 3, "identical": 1, "first_difference": None, "differing_gradients": 0, "gradients": 113}
    parted = {**same, "identical": 0, "first_difference": "output of trunk.3.f.1", "differing_gradients": 12}
    rows.append(make_row(case=REVNET.stored(), probe="determinism", metrics=same, samples={}))
    rows.append(make_row(case=REVNET, probe="determinism", metrics=parted, samples={}))
    broken = REVNET.replace(autocast="float16")
    rows.append(
        make_row(
            case=broken, probe="drift", status="crashed", metrics={}, samples={}, message="FloatingPointError: trunk.2"
        )
    )
    return write_run(tmp_path_factory.mktemp("drift") / "run", *rows)


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    return build_report([run])


def table(report: Report, title: str) -> Table:
    (found,) = [b for s in report.sections for b in s.blocks if isinstance(b, Table) and b.title == title]
    return found


def test_activations_that_are_lost_are_said_to_be(tmp_path: Path) -> None:
    rows: list[Row | tuple[Row, Columns]] = []
    for coupling, error in (("momentum:0.5", 0.3), ("midpoint:0.5", 1e-5)):
        case = Case(model="revgpt-1m", coupling=coupling, strategy="reconstructed")
        metrics = {"predicted_activation_error": error, "bounded_activation_error": 1.0, "blocks": 10}
        rows.append((make_row(case=case, probe="lipschitz", metrics=metrics, samples={}), blocks_series(3, "float32")))
    notes = table(build_report([write_run(tmp_path / "run", *rows)]), "Why: what blocks do to an error").notes
    said = [str(note) for note in notes if "loses its activations" in str(note)]
    assert len(said) == 1
    assert "RevGPT-1M, momentum:0.5 (float32)" in said[0]
    assert "off by up to 0.3 of their norm. Its inverse divides by 0.5 at each function" in said[0]


def test_what_keeping_the_first_state_mends_is_measured_with_and_without(tmp_path: Path) -> None:
    rows: list[Row | tuple[Row, Columns]] = []
    for repeat, factor in ((1, 0.9), (2, 1.0), (3, 1.1)):
        for coupling, error in (("momentum:0.9", 4e-7), ("momentum:0.9:forget", 1.6e-6)):
            case = Case(model="revgpt-1m", coupling=coupling, strategy="reconstructed")
            columns: Columns = {
                "level": ["block", *["tensor"] * 4],
                "name": ["trunk.0", "trunk.0.f.weight", "trunk.0.f.bias", "trunk.0.f.norm", "trunk.1.f.weight"],
                "relative_error": [9e-7, error * factor, error, None, 3e-7],
            }  # fmt: skip
            metrics = {"predicted_activation_error": 0.3 if "forget" in coupling else 1e-6}
            rows.append((make_row(case=case, probe="drift", metrics={}, samples={}, repeat=repeat), columns))
            rows.append(make_row(case=case, probe="lipschitz", metrics=metrics, samples={}, repeat=repeat))
    notes = [str(n) for n in table(report_of(tmp_path / "run", *rows), "Why: what blocks do to an error").notes]
    (said,) = [note for note in notes if "keeps what its first function is given" in note]
    assert "RevGPT-1M, momentum:0.9 (float32) keeps what its first function is given" in said
    assert "is off by 4.0e-07 with it and 1.6e-06 without (4 ×), medians over its tensors" in said
    (lost,) = [note for note in notes if "loses its activations" in note]
    assert "Keeping what its first function is given (momentum:0.9) mends the gradient of that one." in lost


def test_the_table_shows_both_parts_beside_stored(report: Report) -> None:
    found = table(report, "Angle and error of the gradient, against float64")
    assert found.columns == (
        "Network", "Arithmetic", "Angle", "of stored", "Smooth error, ε", "to stored", "Flips", "Activations, ε"
    )  # fmt: skip
    rows = {(row[0], row[1]): row for row in found.rows}
    assert rows["RevNet-38", "float32"][2:] == [
        "0.574° (0.00111° to 2.87°)", "0.287°", "180", "2 × (1.5 to 2.5)", "2", "63"
    ]  # fmt: skip
    assert rows["36 basic blocks", "float64"][3:] == ["0°", "720", "–", "none", "252"]
    assert rows["RevNet-38", "autocast float16"][2] == "crashed"
    notes = " ".join(found.notes)
    assert "over 3 draws" in notes
    assert "Fewer than 30 draws" in notes
    assert "All are reconstructed." in notes


def test_a_network_that_back_propagates_by_itself_is_not_called_stored(tmp_path: Path) -> None:
    stored = Case(model="revnet-38", batch_size=16)
    found = {"angle_degrees": 0.1, "verdict": "safe", "verdict_words": "safe: it is", "own_functions": "Theirs"}
    other = make_row(case=stored, probe="drift", metrics=found, samples={"angle_degrees": [0.1]})
    report = report_of(tmp_path, other)
    tables = [b for s in report.sections for b in s.blocks if isinstance(b, Table) and "gradient" in b.title]
    assert len(tables) == 2
    for table in tables:
        assert "All are its own, Theirs." in table.notes[-1]


def test_the_verdicts_are_the_rows(report: Report) -> None:
    rows = {(row[0], row[1]): row[2:] for row in table(report, "Can the gradient be trusted?").rows}
    assert rows["RevNet-38", "float32"] == ["safe", "for these 9 blocks", "1.50°, head.4.bias"]
    assert rows["36 basic blocks", "bfloat16"][:2] == ["unsafe", "for these 36 blocks"]
    assert rows["RevNet-38", "autocast float16"][:2] == ["crashed", "FloatingPointError: trunk.2"]


def test_prediction_stands_beside_measurement(report: Report) -> None:
    rows = table(report, "Why: what blocks do to an error").rows
    assert [row[0] for row in rows] == ["RevNet-38", "36 basic blocks"]
    assert rows[1][2:] == [
        "2.0 (8.0)", "2.0 (8.0)", "2.0 (8.0)", "3.0 (9.0)", "1.0e-06", "3.0e-05", "30", "1.0e-03", "1.25 ×", "nowhere"
    ]  # fmt: skip


def test_where_steps_part(report: Report) -> None:
    rows = table(report, "Do identical steps repeat?").rows
    assert [row[4] for row in rows] == ["equal", "part at the output of trunk.3.f.1"]


def test_the_figures_say_what_they_show(report: Report) -> None:
    found = figures(report)
    depth = found["Drift against depth"]
    assert "float32 at 36 blocks 0.578°" in depth.alternative
    parts = found["Rounding follows ε, flips do not"]
    assert f"smooth error: 9 blocks {2.0**29:.1e}, 36 blocks {2.0**29:.1e}" in parts.alternative
    back = found["Error of the activations on the way back: 36 basic blocks"]
    assert f"float32 from {2 * 2.0**-23:.1e} to {2.0**13:.1e}" in back.alternative
    assert "Error of the activations on the way back: RevNet-38" in found
    assert not any("9 basic blocks" in title for title in found)  # the deepest chain only


def test_rows_of_an_older_revbench(tmp_path: Path) -> None:
    """Rows of before the parts were told apart: what is not there is a dash."""
    old = make_row(
        case=REVNET, probe="drift", metrics={"angle_degrees": 0.1, "relative_error": 0.002, "draws": 3},
        samples={"angle_degrees": [0.1, 0.2, 0.3], "relative_error": [0.002] * 3},
    )  # fmt: skip
    found = report_of(tmp_path / "run", old)
    rows = table(found, "Angle and error of the gradient, against float64").rows
    assert rows[0][2:] == ["0.200° (0.100° to 0.300°)", "–", "–", "–", "–", "–"]
    assert figures(found) == {}


@pytest.mark.parametrize(
    "columns",
    [
        {"level": ["block"], "name": ["$x$<b>"]},
        {"level": ["block", 3], "name": ["a" * 500, "$\\frac{"], "activation_error": [1e-3, 1e-4]},
        {"name": ["a"], "activation_error": [1.0]},
        {
            "level": ["block"] * 2,
            "name": ["a", "b"],
            "activation_error": [0.0, None],
            "activation_error_low": [None, None],
        },
    ],
)
def test_a_strangers_series_breaks_nothing(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    metrics = {"verdict_words": 7}
    rows = [
        make_row(case=REVNET, probe=probe, metrics=metrics, samples=samples("float32", 9))
        for probe in ("drift", "lipschitz")
    ]
    report = report_of(tmp_path / "run", *((row, columns) for row in rows))
    assert table(report, "Can the gradient be trusted?").rows[0][2] == "7"
