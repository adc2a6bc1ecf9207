"""What the report says of memory: by what it is for, against depth, within a limit, on the way to what the system shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from revbench.case import Case
from revbench.probes.reconciliation import reconcile
from revbench.report.document import Figure
from tests.report.reports import BASE, figures, memory, report_of, tables, timed_row
from tests.results.rows import make_row


def on_a_gpu(live: int, **others: Any) -> dict[str, Any]:
    names = ("requested_peak_bytes", "allocated_peak_bytes", "reserved_peak_bytes", "nvml_process_bytes")
    found: dict[str, Any] = {"peak_bytes": live << 20}
    found |= {name: (live + 10 * (i + 1)) << 20 for i, name in enumerate(names)}
    found |= {"nvml_device_used_bytes": 1000 << 20, "allocation_retries": 2, "allocator_ooms": 0, **others}
    return {**memory(live << 20), **found, **reconcile({**found})}


def test_every_gap_to_nvidia_smi_has_a_name(tmp_path: Path) -> None:
    stored = BASE.replace(device="cuda")
    report = report_of(
        tmp_path / "run",
        make_row(case=stored, probe="memory", metrics=on_a_gpu(800), samples={}),
        make_row(case=stored.replace(strategy="reconstructed"), probe="memory", metrics=on_a_gpu(100), samples={}),
    )
    table = tables(report)["From live tensors to what the system shows"]
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert row["live tensors"] == "100.0 MiB"
    assert row["+ workspace"] == row["+ rounding"] == row["+ cache, fragmentation"] == row["+ context"] == "10.0 MiB"
    assert row["+ other processes"] == "860.0 MiB"
    assert row["device (NVML)"] == "1000.0 MiB"
    assert "Retries of the allocator: 4; allocations that failed: 0" in " ".join(table.notes)
    waterfall = figures(report)["From live tensors to what the system shows: RevNet-38"]
    assert "reconstructed from 100.0 MiB to 1000.0 MiB" in waterfall.alternative


def test_a_waterfall_ends_where_figures_are_missing(tmp_path: Path) -> None:
    hidden = {"nvml_process_bytes": None, "nvml_process_bytes_reason": "hidden"}
    stored = BASE.replace(device="cuda")
    report = report_of(
        tmp_path / "run",
        make_row(case=stored, probe="memory", metrics=on_a_gpu(800, **hidden), samples={}),
        make_row(
            case=stored.replace(strategy="reconstructed"), probe="memory", metrics=on_a_gpu(100, **hidden), samples={}
        ),
    )
    table = tables(report)["From live tensors to what the system shows"]
    assert dict(zip(table.columns, table.rows[0], strict=True))["process (NVML)"] == "–"
    assert "from 100.0 MiB to 130.0 MiB" in next(iter(figures(report).values())).alternative


def test_the_area_chart_names_the_peaks(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "operation": [1, 2, 3], "live_bytes": [5 << 20, 9 << 20, 3 << 20], "gradient_bytes": [0, 1 << 20, 1 << 20],
        "phase": ["forward", "backward", "optimizer"],
    }  # fmt: skip
    metrics = {**memory(8 << 20), "parameter_bytes": 1 << 20, "optimizer_state_bytes": 1 << 20}
    row = make_row(case=BASE, probe="memory", metrics=metrics, samples={})
    (figure,) = figures(report_of(tmp_path / "run", (row, columns))).values()
    assert figure.alternative == "Peaks: RevNet-38 stored 9.0 MiB."


def test_images_per_second_within_the_same_memory(tmp_path: Path) -> None:
    limit = {"batch_size": 1, "memory_limit_bytes": 64 << 20}
    stored = BASE.replace(**limit)
    rows = []
    for case, size, seconds in ((stored, 10, 0.5), (stored.replace(strategy="reconstructed"), 40, 1.0)):
        fit = {"largest_batch_size": size, "predicted_peak_bytes": 60 << 20, "margin": 0.0}
        rows.append(make_row(case=case, probe="fit", metrics=fit, samples={}))
        rows.append(timed_row(case.replace(batch_size=size), seconds))
    rows.append(make_row(case=stored.replace(strategy="recursive"), probe="fit", samples={}, metrics={
        "largest_batch_size": 0, "predicted_peak_bytes": 99 << 20, "margin": 0.0}))  # fmt: skip
    report = report_of(tmp_path / "run", *rows)
    table = tables(report)["Items a second within the same memory"]
    assert [row[1:4] + row[6:] for row in table.rows] == [
        ["RevNet-38", "stored", "10", "20.0", "1.00 ×"], ["RevNet-38", "reconstructed", "40", "40.0", "2.00 ×"],
        ["RevNet-38", "recursive", "none fits", "–", "–"],
    ]  # fmt: skip
    assert "Time and computation of a training step" not in tables(report)


def test_a_limit_that_a_gpu_does_not_have_whole_is_said(tmp_path: Path) -> None:
    case = BASE.replace(batch_size=1, memory_limit_bytes=80 << 30, device="cuda")
    fit = {"largest_batch_size": 9, "predicted_peak_bytes": 60 << 30, "margin": 0.1, "usable_limit_bytes": 79 << 30}
    whole = case.replace(memory_limit_bytes=8 << 30)
    rows = [
        make_row(case=case, probe="fit", metrics=fit, samples={}),
        make_row(case=whole, probe="fit", metrics=fit | {"usable_limit_bytes": 8 << 30}, samples={}),
    ]
    (note,) = tables(report_of(tmp_path / "run", *rows))["Items a second within the same memory"].notes
    assert "10% of it left free. Of 80.0 GiB the GPU had 79.0 GiB. Batch:" in note


def test_growth_with_depth_is_fitted(tmp_path: Path) -> None:
    forms = {"stored": lambda n: 3 * n, "reconstructed": lambda n: 40, "checkpointed": lambda n: 5 + 7 * n**0.5,
             "recursive": lambda n: 4 + 6 * math.log2(n)}  # fmt: skip
    rows = [
        make_row(
            case=Case(model=f"revbench.peers:chain(kind=basic,blocks={blocks})", strategy=strategy, batch_size=1),
            probe="memory", samples={}, metrics={"activation_peak_without_gradients_bytes": round(form(blocks) * 2**20)},
        )
        for strategy, form in forms.items()
        for blocks in (4, 16, 64)
    ]  # fmt: skip
    report = report_of(tmp_path / "run", *rows)
    table = tables(report)["Peak memory against depth (the paper's Table 1)"]
    found = {row[1]: (row[2], row[-2], row[-1]) for row in table.rows}
    assert found["stored"][0] == "O(L)"
    assert found["stored"][1].endswith(" 3.0 MiB · L")
    assert found["reconstructed"] == ("O(1)", "40.0 MiB", "0.0%")
    assert found["checkpointed"] == ("O(√L)", "5.0 MiB + 7.0 MiB · √L", "0.0%")
    assert found["recursive"] == ("O(log L)", "4.0 MiB + 6.0 MiB · ⌈log2 L⌉", "0.0%")
    assert table.columns[2:4] == ("Paper: activations", "Paper: operations")
    assert (
        "recursive, ⌈log2 L⌉ from 16.0 MiB to 40.0 MiB"
        in figures(report)["Peak memory against depth: basic blocks"].alternative
    )


def test_operations_stand_beside_memory_against_depth(tmp_path: Path) -> None:
    """Those of the shallowest and of the deepest chain, over stored's."""
    rows = []
    for strategy, factor in (("stored", lambda n: 3.0), ("recursive", lambda n: 3 + math.log2(n))):
        for blocks in (4, 16, 64):
            case = Case(model=f"revbench.peers:chain(kind=basic,blocks={blocks})", strategy=strategy, batch_size=1)
            peak = {"activation_peak_without_gradients_bytes": blocks << 20}
            rows.append(make_row(case=case, probe="memory", samples={}, metrics=peak))
            rows.append(make_row(case=case, probe="flops", samples={}, metrics={"step_flops": factor(blocks) * blocks}))
    table = tables(report_of(tmp_path / "run", *rows))["Peak memory against depth (the paper's Table 1)"]
    assert table.columns[-1] == "Operations to stored"
    assert [(row[1], row[3], row[-1]) for row in table.rows] == [
        ("stored", "O(L)", "1.00 × → 1.00 ×"), ("recursive", "O(L log L)", "1.67 × → 3.00 ×"),
    ]  # fmt: skip


def test_each_family_has_a_picture_of_its_own(tmp_path: Path) -> None:
    """A network of one depth is none, and one that runs under a memory limit stands elsewhere."""
    rows = []
    for blocks in (4, 16, 64):
        for case in (
            Case(model=f"revbench.peers:chain(kind=basic,blocks={blocks})"),
            Case(model="revgpt-1m", depth=blocks),
            Case(model="revgpt-1m", depth=blocks, memory_limit_bytes=1 << 30),
        ):
            peak = {"activation_peak_without_gradients_bytes": blocks << 20}
            rows.append(make_row(case=case, probe="memory", samples={}, metrics=peak))
    peak = {"activation_peak_without_gradients_bytes": 1 << 20}
    rows.append(make_row(case=Case(model="gpt-1m", depth=3), probe="memory", samples={}, metrics=peak))
    report = report_of(tmp_path / "run", *rows)
    (section,) = [one for one in report.sections if one.title == "Memory against depth"]
    found = {block.title: block.name for block in section.blocks if isinstance(block, Figure)}
    assert found == {
        "Peak memory against depth: basic blocks": "depth", "Peak memory against depth: RevGPT-1M": "depth-revgpt-1m",
    }  # fmt: skip
    table = tables(report)["Peak memory against depth (the paper's Table 1)"]
    assert [row[0] for row in table.rows] == ["basic blocks", "RevGPT-1M"]
    (row,) = tables(report)["Peak memory of a training step"].rows  # what is drawn against depth stands there alone
    assert row[0] == "GPT-1M, 3 blocks"


def test_energy_and_the_process(tmp_path: Path) -> None:
    stored = BASE.replace(device="cuda")
    energy = {"joules_per_step": 4.0, "watts": 300.0, "windows": 3, "window_seconds": 2.0}
    process = {"nvml_process_peak_bytes": 5 << 20, "nvml_device_before_bytes": 1 << 20, "nvml_device_after_bytes": 6 << 20,
               "sampler_interval_seconds": 0.01, "sampler_slowdown": 0.004}  # fmt: skip
    report = report_of(
        tmp_path / "run",
        make_row(case=stored, probe="energy", metrics=energy, samples={}),
        make_row(
            case=stored.replace(strategy="reconstructed"),
            probe="energy",
            metrics={**energy, "joules_per_step": 5.0},
            samples={},
        ),
        make_row(case=stored, probe="nvml", metrics=process, samples={}),
    )
    assert tables(report)["Energy of a training step"].rows[1] == [
        "RevNet-38",
        "reconstructed",
        "5.00 J",
        "1.25 ×",
        "300 W",
        "16.7 ms",
    ]
    (row,) = tables(report)["The process through NVML"].rows
    assert row == ["RevNet-38", "stored", "5.0 MiB", "1.0 MiB", "6.0 MiB", "+0.40%"]


def test_leaks_are_told(tmp_path: Path) -> None:
    leak = {
        "leak_bytes_per_step": 2048.0,
        "leak_low_bytes_per_step": 1024.0,
        "leak_high_bytes_per_step": 3072.0,
        "steps": 8,
    }
    gaps = {"unique_set_bytes": 5 << 20, "rss_bytes": 6 << 20}
    metrics = {**memory(1 << 20), **gaps, **reconcile({**memory(1 << 20), **gaps})}
    report = report_of(
        tmp_path / "run",
        make_row(case=BASE, probe="memory", metrics=metrics, samples={}),
        make_row(case=BASE, probe="leak", metrics=leak, samples={}),
    )
    notes = " ".join(tables(report)["From live tensors to what the system shows"].notes)
    assert "RevNet-38 stored 2.0 KiB (1.0 KiB to 3.0 KiB, 95 %, 8 steps)" in notes


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [1]},
        {"operation": [], "live_bytes": [], "phase": []},
        {"live_bytes": [1, None], "phase": ["forward", "backward"]},
        {"live_bytes": [1], "phase": ["lunch"]},
        {"live_bytes": [1], "phase": [3]},
        {"live_bytes": [1], "gradient_bytes": [None], "phase": ["forward"]},
    ],
)
def test_a_series_that_can_not_be_drawn_is_left_out(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    row = make_row(case=BASE, probe="memory", metrics=memory(8 << 20), samples={})
    assert not figures(report_of(tmp_path / "run", (row, columns)))


@pytest.mark.parametrize(
    ("size", "status", "said"), [(0, "ok", "none fits"), (10, "oom", "oom"), (10, "crashed", "crashed")]
)
def test_why_no_batch_was_timed(tmp_path: Path, size: int, status: str, said: str) -> None:
    case = BASE.replace(batch_size=1, memory_limit_bytes=2**20)
    fit = {"largest_batch_size": size, "predicted_peak_bytes": 9, "margin": 0.1}
    rows = [make_row(case=case, probe="fit", metrics=fit, samples={})]
    if status != "ok":
        rows.append(make_row(case=case.replace(batch_size=size), status=status, metrics={}, samples={}))
    (row,) = tables(report_of(tmp_path / "run", *rows))["Items a second within the same memory"].rows
    assert row[3] == said
