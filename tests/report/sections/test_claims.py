"""The checklist of claims: confirmed, refuted, not measured here, each by the rows that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revbench.case import Case
from revbench.report.build import build_report
from revbench.report.document import Report, Table
from revbench.results.schema import Row
from tests.report.reports import BASE, make_run, memory, report_of, timed_row
from tests.results.rows import make_row

OURS = BASE.replace(strategy="reconstructed")
RECOMPUTED = OURS.replace(nonreversible="recomputed")


def claims(report: Report) -> dict[str, tuple[str, str, str]]:
    """What was found of each claim: in words, the verdict, and what is to be seen."""
    table = next(b for s in report.sections for b in s.blocks if isinstance(b, Table) and b.name == "claims")
    see = table.see or [""] * len(table.rows)
    return {
        row[0].split(",")[0].split(":")[0]: (row[2], row[1], name) for row, name in zip(table.rows, see, strict=True)
    }


def of(tmp_path: Path, *rows: Row, claim: str) -> Any:
    found = claims(report_of(tmp_path, *rows)).items()
    return next((what for sentence, what in found if sentence.startswith(claim)), None)


def flops(case: Case, count: float) -> Row:
    return make_row(case=case, probe="flops", metrics={"step_flops": count}, samples={})


def test_what_a_run_says_of_each(tmp_path: Path) -> None:
    found = claims(build_report([make_run(tmp_path / "run")]))
    assert found["Reconstruction needs a third more operations a step"] == (
        "RevNet-38 reconstructed 1.33 ×", "confirmed", "time-and-operations",
    )  # fmt: skip
    assert found["About a quarter of the storage for about twice the time"] == (
        "RevNet-38 reconstructed 0.25 × the activations for 1.50 ×", "confirmed", "peak-memory",
    )  # fmt: skip
    assert "The storage of activations does not depend on depth" not in found
    assert "Reversible blocks preserve volume" not in found
    assert found["Reconstruction does not slow training down"][1] == "can't be told from this"


def test_the_operations_are_those_of_the_way_that_the_paper_means(tmp_path: Path) -> None:
    rows = [flops(BASE, 3e9), flops(OURS, 3.8e9), flops(RECOMPUTED, 4e9)]
    found = of(tmp_path / "both", *rows, claim="Reconstruction needs")
    assert found == (
        "RevNet-38 reconstructed 1.27 ×, RevNet-38 reconstructed, rest recomputed 1.33 ×", "confirmed", "time-and-operations",
    )  # fmt: skip
    found = of(tmp_path / "more", flops(BASE, 3e9), flops(OURS, 5e9), claim="Reconstruction needs")
    assert found[1] == "refuted here"
    certified = [flops(BASE, 3e9), flops(OURS.replace(certify=True), 6e9), timed_row(BASE, 0.2), timed_row(OURS, 0.3)]
    assert of(tmp_path / "certified", *certified, claim="Reconstruction needs") is None


@pytest.mark.parametrize(("seconds", "verdict"), [(0.3, "confirmed"), (0.5, "refuted here")])
def test_storage_for_time(tmp_path: Path, seconds: float, verdict: str) -> None:
    rows = [timed_row(case, s, repeat=i) for case, s in ((BASE, 0.2), (OURS, seconds)) for i in (1, 2, 3)]
    rows += [
        make_row(case=c, probe="memory", metrics=memory(n), samples={}) for c, n in ((BASE, 8 << 20), (OURS, 1 << 20))
    ]
    assert of(tmp_path, *rows, claim="About a quarter")[1] == verdict


def test_an_unstable_time_bears_no_verdict(tmp_path: Path) -> None:
    wild = [0.1, 0.1, 0.9, 0.9, 0.2, 0.2, 0.5, 0.5, 0.1, 0.1, 0.7, 0.7]
    noisy = make_row(case=OURS, metrics=timed_row(OURS, 0.3).metrics, samples={"step_seconds": wild})
    words, verdict, _ = of(tmp_path, timed_row(BASE, 0.2), noisy, claim="An update takes")
    assert verdict == "can't be told from this"
    assert words.endswith("unstable")


def test_the_time_of_the_host_bears_no_verdict(tmp_path: Path) -> None:
    rows = [timed_row(case, seconds, repeat=i) for case, seconds in ((BASE, 0.2), (OURS, 0.5)) for i in (1, 2, 3)]
    bound = [replace(row, metrics={**row.metrics, "launch_bound": 1}) for row in rows]
    assert of(tmp_path / "gpu", *bound, claim="An update takes")[:2] == (
        "RevNet-38 reconstructed 2.50 ×, launch-bound", "can't be told from this",
    )  # fmt: skip
    assert of(tmp_path / "cpu", *rows, claim="An update takes")[1] == "refuted here"


def test_one_of_two_networks(tmp_path: Path) -> None:
    other = [case.replace(model="revnet-164") for case in (BASE, OURS)]
    rows = [flops(BASE, 3e9), flops(OURS, 4e9), flops(other[0], 3e9), flops(other[1], 6e9)]
    assert of(tmp_path, *rows, claim="Reconstruction needs")[1] == "confirmed of 1 of 2"


@pytest.mark.parametrize(
    ("apart", "verdict"), [(0.001, "confirmed"), (0.0097, "can't be told from this"), (0.1, "refuted here")]
)
def test_the_same_error_is_a_test_over_seeds(tmp_path: Path, apart: float, verdict: str) -> None:
    """What could not be shown refutes nothing; what differs for certain does."""
    base = Case(model="revnet-38", batch_size=8, data="digits", training_steps=600)
    rows = []
    for seed in range(6):
        for case in (base.replace(model="resnet-32"), base, base.replace(strategy="reconstructed")):
            error = 0.3 + (apart + 1e-4 * seed) * (case.strategy == "reconstructed")
            rows.append(
                make_row(
                    case=case.replace(seed=seed), probe="training", metrics={"validation_error": error}, samples={}
                )
            )
    rows.append(timed_row(OURS, 0.1))
    for claim in ("Reconstruction does not slow", "A RevNet ends"):
        words, found, _ = of(tmp_path / claim[:8], *rows, claim=claim)
        assert found == verdict
        assert words.endswith("points over 6 seeds")


def test_a_run_without_reconstruction_has_no_checklist(tmp_path: Path) -> None:
    report = report_of(tmp_path, timed_row(BASE, 0.2))
    assert "What was claimed" not in [s.title for s in report.sections]


def test_a_chain_of_our_own_counts_and_that_of_another_library_does_not(tmp_path: Path) -> None:
    ours, theirs = (
        Case(model=f"revbench.peers:chain(library={name},kind=basic,blocks=9)", batch_size=32)
        for name in ("revbench", "memcnn")
    )
    rows = [flops(ours, 3e9), flops(ours.replace(strategy="reconstructed"), 4e9)]
    rows.append(flops(theirs.replace(strategy="reconstructed"), 5e9))
    found = of(tmp_path, *rows, claim="Reconstruction needs")
    assert found == ("basic chain reconstructed 1.33 ×", "confirmed", "libraries-and-ways")


@pytest.mark.parametrize(("kept", "verdict"), [(86 << 20, "confirmed"), (150 << 20, "refuted here")])
def test_what_forward_leaves_is_beside_what_memcnn_published(tmp_path: Path, kept: int, verdict: str) -> None:
    resnet = BASE.replace(model="resnet-32")
    rows = [
        make_row(case=case, probe="memory", metrics={**memory(1 << 20), "kept_bytes": count}, samples={})
        for case, count in ((resnet, 239 << 20), (OURS, kept))
    ]
    words, found, see = of(tmp_path, *rows, claim="After the forward pass")
    assert (found, see) == (verdict, "peak-memory")
    assert words == f"RevNet-38 {kept / (239 << 20):.2f} × (published 0.36 ×)"


@pytest.mark.parametrize(("peak", "verdict"), [(10 << 20, "confirmed"), (1 << 20, "refuted here")])
def test_the_peak_of_memcnn_is_beside_what_its_forward_leaves(tmp_path: Path, peak: int, verdict: str) -> None:
    case = Case(model="revbench.peers:chain(library=memcnn,kind=basic,blocks=9)", strategy="reconstructed")
    metrics = {**memory(1 << 20), "kept_bytes": 1 << 20, "allocated_activation_peak_bytes": peak}
    row = make_row(case=case, probe="memory", metrics=metrics, samples={})
    words, found, _ = of(tmp_path, row, claim="The peak of MemCNN's")
    assert found == verdict
    assert words.startswith("basic chain keeps 1.0 MiB and peaks at ")


def test_a_run_that_says_nothing_of_any_claim_has_no_checklist(tmp_path: Path) -> None:
    report = report_of(tmp_path, make_row(case=BASE, probe="parameters", metrics={"parameters": 3}, samples={}))
    assert "What was claimed" not in [s.title for s in report.sections]
