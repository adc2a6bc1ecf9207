"""The first screen: cards, a sentence, and a picture; what does not hold its weight is not a headline."""

from __future__ import annotations

from pathlib import Path

import pytest

from revbench.report.build import build_report
from revbench.report.document import Card, Cards, Fact, Figure, Paragraph, Report
from tests.report.reports import BASE, make_run, memory, report_of, timed_row
from tests.results.rows import make_row

OURS = BASE.replace(strategy="reconstructed")


def card_of(report: Report) -> Card:
    (card,) = next(b for b in report.sections[0].blocks if isinstance(b, Cards)).cards
    return card


def test_a_card_says_what_the_rows_say(tmp_path: Path) -> None:
    report = build_report([make_run(tmp_path / "run")])
    assert report.sections[0].title == "Overview"
    card = card_of(report)
    assert (card.title, card.before, card.after) == ("RevNet-38", "stored", "reconstructed")
    assert card.where.startswith("float32, batch 16, 32×32, cpu; measured on ")
    memory_of_step, time, speed, *_ = card.facts
    assert memory_of_step == Fact(
        "Peak memory of a step", "8.0 MiB", "2.0 MiB", "▼ 0.25 ×", True,
        "of live tensors; above the steady state 8.0 MiB → 2.0 MiB, 0.25 ×",
    )  # fmt: skip
    assert time == Fact("Time of a step", "400 ms", "600 ms", "▲ 1.50 ×", False, "over 3 launches")
    assert speed == Fact("Images a second", "40.0", "26.7", "▼ 0.67 ×", False, "over 3 launches")


def test_the_picture_has_every_way(tmp_path: Path) -> None:
    report = build_report([make_run(tmp_path / "run")])
    figure = next(b for b in report.sections[0].blocks if isinstance(b, Figure))
    assert figure.name == "time-against-memory"
    assert figure.alternative == (
        "ResNet-32 stored: 4.0 MiB, 0.75 ×; RevNet-38 stored: 8.0 MiB, 1.00 ×; RevNet-38 reconstructed: 2.0 MiB, 1.50 ×."
    )
    assert "<title>RevNet-38 reconstructed: 2.0 MiB, 1.50 ×</title>" in figure.svg


def test_an_unstable_time_has_no_number_but_its_reason(tmp_path: Path) -> None:
    wild = [0.1, 0.1, 0.9, 0.9, 0.2, 0.2, 0.5, 0.5, 0.1, 0.1, 0.7, 0.7]
    noisy = make_row(case=OURS, metrics=timed_row(OURS, 0.3).metrics, samples={"step_seconds": wild})
    memories = [make_row(case=c, probe="memory", metrics=memory(8 << 20), samples={}) for c in (BASE, OURS)]
    report = report_of(tmp_path, timed_row(BASE, 0.2), noisy, *memories)
    time = next(fact for fact in card_of(report).facts if fact.name == "Time of a step")
    assert (time.change, time.better) == ("unstable", None)
    assert time.note.startswith("the interval reaches")
    assert not [b for b in report.sections[0].blocks if isinstance(b, Paragraph)], "an unstable time advises nobody"


@pytest.mark.parametrize(("draws", "change"), [(3, "too few draws"), (30, "safe")])
def test_the_gradient_has_the_verdict_of_its_draws(tmp_path: Path, draws: int, change: str) -> None:
    samples = {
        "angle_degrees": [0.2] * draws, "stored_angle_degrees": [0.1] * draws, "relative_error": [1e-3] * draws,
        "significant_digits": [3.0] * draws, "error_over_noise": [0.02] * draws, "noise": [0.5] * draws,
    }  # fmt: skip
    metrics = {name: values[0] for name, values in samples.items()}
    rows = [make_row(case=c, probe="memory", metrics=memory(8 << 20), samples={}) for c in (BASE, OURS)]
    report = report_of(tmp_path, *rows, make_row(case=OURS, probe="drift", metrics=metrics, samples=samples))
    gradient = card_of(report).facts[-1]
    assert (gradient.before, gradient.after, gradient.change) == ("0.100°", "0.200°", change)


def test_the_largest_batch_is_that_of_the_largest_limit(tmp_path: Path) -> None:
    rows = [make_row(case=c, probe="memory", metrics=memory(8 << 20), samples={}) for c in (BASE, OURS)]
    for limit, sizes in ((1 << 25, (9, 29)), (1 << 26, (20, 64))):
        for case, size in zip((BASE, OURS), sizes, strict=True):
            limited = case.replace(memory_limit_bytes=limit, batch_size=1)
            rows.append(make_row(case=limited, probe="fit", metrics={"largest_batch_size": size}, samples={}))
    fact = next(f for f in card_of(report_of(tmp_path, *rows)).facts if f.name.startswith("Largest batch"))
    assert fact == Fact("Largest batch in 64.0 MiB", "20", "64", "▲ 3.20 ×", True, "predicted, byte for byte")
