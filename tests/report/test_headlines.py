"""The ten-second end: a line a network, and a sentence that weighs the strategies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revbench.case import Case
from revbench.report.evidence import Evidence
from revbench.report.headlines import WIDTH, headlines, largest_of, lines_of
from revbench.report.ways import advice
from revbench.results.runs import read_run
from revbench.results.schema import Row
from tests.report.reports import BASE, memory, timed_row
from tests.results.rows import ENVIRONMENT, make_row, write_run

OURS = BASE.replace(strategy="reconstructed")


def evidence(folder: Path, *rows: Row) -> Evidence:
    return Evidence(read_run(write_run(folder, *rows)), ENVIRONMENT["environment_id"])


def measured(case: Case, seconds: float, peak: int, **changes: Any) -> list[Row]:
    return [
        *(timed_row(case, seconds, repeat=i, **changes) for i in (1, 2, 3)),
        make_row(case=case, probe="memory", metrics=memory(peak), samples={}),
    ]


def test_a_line_fits_the_terminal(tmp_path: Path) -> None:
    large = [case.replace(model="revnet-164", batch_size=100) for case in (BASE, OURS)]
    drift = make_row(
        case=OURS, probe="drift", metrics={"angle_degrees": 0.2, "stored_angle_degrees": 0.11},
        samples={"angle_degrees": [0.1, 0.1, 0.2, 0.2, 0.3, 0.3], "stored_angle_degrees": [0.1, 0.1, 0.11, 0.11, 0.12, 0.12]},
    )  # fmt: skip
    found = evidence(
        tmp_path, *measured(BASE, 0.07, 50 << 20), *measured(OURS, 0.1, 19 << 20), drift,
        *measured(large[0], 0.01, 2 << 30), *measured(large[1], 0.03, 300 << 20),
    )  # fmt: skip
    lines = lines_of(headlines(found))
    assert lines == [
        "            peak memory          step    items a second  gradient off",
        "RevNet-38   50.0 → 19.0 MiB      1.43 ×  229 → 160       0.110 → 0.200°",
        "RevNet-164  2.0 GiB → 300.0 MiB  3.00 ×  10,000 → 3,333  –",
    ]
    assert max(map(len, lines)) <= WIDTH


def test_what_would_be_too_long_takes_several_lines(tmp_path: Path) -> None:
    """A factory's name is as long as somebody makes it."""
    named = [case.replace(model="package.module:a_very_long_name_of_a_factory_of_networks") for case in (BASE, OURS)]
    lines = lines_of(
        headlines(evidence(tmp_path, *measured(named[0], 0.07, 1 << 20), *measured(named[1], 0.1, 1 << 19)))
    )
    assert lines[0] == named[0].model
    assert [line.split()[0] for line in lines[1:]] == ["peak", "step", "items", "gradient"]
    assert max(map(len, lines)) <= WIDTH


def test_an_unstable_ratio_is_no_headline_and_gives_no_advice(tmp_path: Path) -> None:
    wild = [0.1, 0.1, 0.9, 0.9, 0.2, 0.2, 0.5, 0.5, 0.1, 0.1, 0.7, 0.7]
    noisy = make_row(case=OURS, metrics=timed_row(OURS, 0.3).metrics, samples={"step_seconds": wild})
    memories = [make_row(case=c, probe="memory", metrics=memory(8 << 20), samples={}) for c in (BASE, OURS)]
    found = evidence(tmp_path, timed_row(BASE, 0.2), noisy, *memories)
    (one,) = headlines(found)
    assert one.cells[2] == "unstable"
    assert largest_of([one]) is None
    assert advice(found, None) is None
    assert advice(found, one.case) is None


def test_the_advice_weighs_all_strategies(tmp_path: Path) -> None:
    ways = {"checkpointed": (0.13, 30 << 20), "recursive": (0.2, 10 << 20)}
    rows = [row for name, (s, peak) in ways.items() for row in measured(BASE.replace(strategy=name), s, peak)]  # type: ignore[arg-type]
    found = evidence(tmp_path, *measured(BASE, 0.07, 50 << 20), *measured(OURS, 0.1, 19 << 20), *rows)
    # Checkpoints take more time and more memory than reconstruction: nobody should choose them.
    assert advice(found, largest_of(headlines(found))) == (
        "RevNet-38 (float32, batch 16, 32×32, cpu): stored is fastest; where its 50.0 MiB do not fit: reconstructed (19.0 MiB,"
        " 1.43 × its time), then recursive (10.0 MiB, 2.86 × its time)."
    )


def test_the_advice_where_one_wins_in_both(tmp_path: Path) -> None:
    found = evidence(tmp_path, *measured(BASE, 0.1, 50 << 20), *measured(OURS, 0.09, 19 << 20))
    said = advice(found, largest_of(headlines(found)))
    assert said == (
        "RevNet-38 (float32, batch 16, 32×32, cpu): reconstructed is fastest and needs least memory (19.0 MiB)."
    )


def test_the_advice_weighs_the_resnet_of_the_pair_too(tmp_path: Path) -> None:
    resnet = BASE.replace(model="resnet-32")
    found = evidence(
        tmp_path, *measured(resnet, 0.06, 40 << 20), *measured(BASE, 0.07, 50 << 20), *measured(OURS, 0.1, 19 << 20)
    )
    assert advice(found, largest_of(headlines(found))) == (
        "ResNet-32 and RevNet-38 (float32, batch 16, 32×32, cpu): ResNet-32 stored is fastest; where its 40.0 MiB do not fit:"
        " RevNet-38 reconstructed (19.0 MiB, 1.67 × its time)."
    )


def test_few_draws_are_no_headline(tmp_path: Path) -> None:
    metrics = {"angle_degrees": 0.2, "stored_angle_degrees": 0.11}
    samples = {"angle_degrees": [0.1, 0.2, 0.3], "stored_angle_degrees": [0.1, 0.11, 0.12]}
    drift = make_row(case=OURS, probe="drift", metrics=metrics, samples=samples)
    (one,) = headlines(evidence(tmp_path, *measured(BASE, 0.07, 50 << 20), *measured(OURS, 0.1, 19 << 20), drift))
    assert one.cells[4] == "too few draws"


@pytest.mark.parametrize("probes", [(), ("memory",)])
def test_what_was_not_measured_is_a_dash(tmp_path: Path, probes: tuple[str, ...]) -> None:
    rows = [make_row(case=c, probe=probe, metrics=memory(8), samples={}) for c in (BASE, OURS) for probe in probes]
    found = headlines(evidence(tmp_path, *rows, make_row(case=BASE, probe="parameters", metrics={}, samples={})))
    assert [one.cells[2:] for one in found] == [("–", "–", "–")] * bool(probes)
    assert lines_of([]) == []


def scattered(case: Case, seconds: tuple[float, ...], peak: int) -> list[Row]:
    rows = [timed_row(case, value, repeat=i) for i, value in enumerate(seconds, 1)]
    return [*rows, make_row(case=case, probe="memory", metrics=memory(peak), samples={})]


def test_the_advice_calls_nothing_fastest_that_is_not_surely_faster(tmp_path: Path) -> None:
    """Of those that may be as fast as any it names the one that needs least."""
    found = evidence(
        tmp_path, *scattered(BASE, (0.100, 0.102, 0.098), 50 << 20), *scattered(OURS, (0.101, 0.101, 0.101), 19 << 20)
    )
    assert advice(found, largest_of(headlines(found))) == (
        "RevNet-38 (float32, batch 16, 32×32, cpu): reconstructed is as fast as any and needs least memory (19.0 MiB)."
    )


def test_what_is_unstable_is_named_and_its_memory_counts(tmp_path: Path) -> None:
    other = BASE.replace(strategy="recursive")
    wild = [0.1, 0.1, 0.9, 0.9, 0.2, 0.2, 0.5, 0.5, 0.1, 0.1, 0.7, 0.7]
    noisy = make_row(case=other, metrics=timed_row(other, 0.3).metrics, samples={"step_seconds": wild})
    small = make_row(case=other, probe="memory", metrics=memory(1 << 20), samples={})
    found = evidence(tmp_path, *measured(BASE, 0.1, 50 << 20), *measured(OURS, 0.09, 19 << 20), noisy, small)
    assert advice(found, largest_of(headlines(found))) == (
        "RevNet-38 (float32, batch 16, 32×32, cpu): reconstructed is fastest (19.0 MiB). Left out, since the ratio"
        " to RevNet-38 stored is unstable: recursive."
    )


def test_on_a_gpu_what_the_allocator_gave_out_decides_and_the_hosts_time_advises_nobody(tmp_path: Path) -> None:
    def on_gpu(case: Case, seconds: float, live: int, allocated: int, **bound: int) -> list[Row]:
        case = case.replace(device="cuda")
        rows = [timed_row(case, seconds, repeat=i) for i in (1, 2, 3)]
        rows = [replace(row, metrics={**row.metrics, **bound}) for row in rows]
        return [
            *rows,
            make_row(
                case=case, probe="memory", metrics={**memory(live), "allocated_peak_bytes": allocated}, samples={}
            ),
        ]

    sizes = ((BASE, 0.1, 50 << 20, 60 << 20), (OURS, 0.2, 19 << 20, 40 << 20))
    found = evidence(tmp_path / "gpu", *(row for one in sizes for row in on_gpu(*one)))
    said = advice(found, largest_of(headlines(found)))
    assert said is not None
    assert "where its 60.0 MiB do not fit: reconstructed (40.0 MiB, 2.00 × its time)" in said
    bound = evidence(tmp_path / "bound", *(row for one in sizes for row in on_gpu(*one, launch_bound=1)))
    assert advice(bound, largest_of(headlines(bound))) is None
    *_, row, note = lines_of(headlines(bound))
    assert "2.00 × *" in row
    assert note == "* launch-bound: the host is what is timed, not the GPU"
    assert not any("launch-bound" in line for line in lines_of(headlines(found)))
