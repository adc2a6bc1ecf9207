"""Networks that set their two ways themselves: measured under both, by every probe that tells strategies apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import revbench
from revbench.case import Case
from revbench.checkup.checks import check
from revbench.checkup.subject import Subject
from revbench.errors import UserError
from revbench.prediction import predict
from revbench.training.loop import measure_training
from revbench.training.sources import FACTORY
from revbench.workload import build_workload, supported_strategies
from tests.checkup.faulty import StrangersChain, network, set_strategy

NAME = "tests.checkup.faulty:two_ways(blocks=6)"
BOTH = [Case(model=NAME, batch_size=256, strategy=strategy) for strategy in ("stored", "reconstructed")]


def test_both_are_set_and_offered() -> None:
    for case in BOTH:
        built = build_workload(case)
        chains = [module for module in built.model.modules() if isinstance(module, StrangersChain)]
        assert [chain.plain for chain in chains] == [case.strategy == "stored"]
        assert supported_strategies(built) == ("stored", "reconstructed")


def test_memory_and_drift_of_both() -> None:
    found = revbench.measure(NAME, ["memory", "drift"], strategy=["stored", "reconstructed"], batch_size=256)
    frame = found.to_frame()
    peaks = frame[frame.probe == "memory"].set_index("strategy").peak_bytes
    assert peaks["reconstructed"] < 0.6 * peaks["stored"]
    drift = frame[frame.probe == "drift"].set_index("strategy")
    assert drift.angle_degrees["reconstructed"] < 1e-2
    assert drift.stored_angle_degrees["reconstructed"] > 0
    assert set(frame.status) == {"ok"}


def test_the_doctor_knows_its_twin() -> None:
    subject = Subject(build_workload(Case(model=NAME, batch_size=6, dtype="float64")))
    assert check(subject, "twin").words.endswith("of the gradient differs from that with its own set_strategy")
    assert check(subject, "twin").verdict == "passed"
    wrong = Case(model=NAME.replace("blocks=6", "fault=scales"), batch_size=6, dtype="float64")
    assert check(Subject(build_workload(wrong)), "twin").verdict == "failed"


def test_run_takes_both_by_default(tmp_path: Any) -> None:
    from pathlib import Path

    from tests.conftest import run_command

    root = Path(__file__).parents[1]
    done = run_command("run", NAME, "--probe", "memory", "--output", str(tmp_path / "run"), cwd=root, module="revbench")
    assert done.returncode == 0, done.stderr
    assert "reconstructed" in done.stdout


def test_both_are_predicted() -> None:
    stored, ours = (predict(case).step.peak_bytes for case in BOTH)
    assert ours < 0.6 * stored


def test_a_training_measures_its_own_way_against_stored() -> None:
    """Masks that are drawn anew in backward are seen along the training."""
    angles = {}
    for fault in ("keeps_of_calls", "masks_of_calls"):
        model = f"tests.checkup.faulty:two_ways(fault={fault},blocks=2)"
        case = Case(model=model, batch_size=16, strategy="reconstructed", training_steps=2, data=FACTORY)
        found = measure_training(
            build_workload(case), progress=lambda _: None, evaluations=1, data_path=FACTORY, drift_every=1
        )
        angles[fault] = max(found.series["angle_degrees"])
    assert angles["keeps_of_calls"] < 1e-2
    assert angles["masks_of_calls"] > 5.0


def fails(model: nn.Module, strategy: str) -> None:
    raise KeyError(strategy)


def failing() -> tuple[Any, ...]:
    return (*network(), fails)


def ours_with_a_setter() -> tuple[Any, ...]:
    chain = revbench.reversible([(nn.Linear(2, 2), nn.Linear(2, 2))])
    return chain, lambda count, generator: (torch.ones(count, 4), torch.ones(count, 4)), mse_loss, set_strategy


def with_a_batch() -> tuple[Any, ...]:
    return nn.Linear(4, 4), torch.ones(2, 4), torch.ones(2, 4)


def with_a_name() -> tuple[Any, ...]:
    return (*network(), "stored")


def of_five() -> tuple[Any, ...]:
    return (*network(), set_strategy, None)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case(model=NAME, strategy="recursive"), "sets its own ways, stored and reconstructed; strategy=recursive"),
        (BOTH[1].replace(kept_half_blocks=2), "strategy=reconstructed and what goes with ours are not among them"),
        (Case(model="tests.test_own_ways:failing"), "the set_strategy of model .* failed for 'stored': KeyError"),
        (Case(model="tests.test_own_ways:ours_with_a_setter"), "whose strategy is set without set_strategy"),
        (Case(model="tests.test_own_ways:with_a_batch"), "returned a Tensor as make_batch; return a function, or None"),
        (Case(model="tests.test_own_ways:with_a_name"), "returned a str as set_strategy; return a function, or None"),
        (Case(model="tests.test_own_ways:of_five"), r"returned tuple, not a module, \(module, make_batch, loss\) or"),
    ],
)
def test_what_can_not_be(case: Case, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_workload(case)
