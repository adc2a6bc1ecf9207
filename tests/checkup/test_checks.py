"""The doctor finds each fault that is planted in a stranger's chain, and no other; none in ours."""

from __future__ import annotations

from typing import Any

import pytest

import revbench
from revbench.case import Case
from revbench.checkup.checks import RUNS, check
from revbench.checkup.declared import CHECKS, Finding
from revbench.checkup.examining import examine
from revbench.checkup.subject import Subject
from revbench.errors import UserError
from revbench.workload import Workload, build_workload
from tests.checkup.faulty import network

# By the fault: the checks that must fail. What is undone along with it may fail, too.
FAULTS = {
    "masks": {"dropout", "generator"},
    "moves the generator": {"generator"},
    "writes buffers": {"buffers"},
    "scales": {"gradient"},
    "forgets autocast": {"autocast"},
    "writes .grad": {"input_without_gradient", "autograd_grad"},
    "ignores versions": {"output_in_place"},
    "keeps": {"memory"},
    "frees its input": {"readable"},
    "loses": {"depth"},
    "second": {"second_derivative"},
    "random": {"determinism"},
    "trains in eval": {"evaluation"},
    "skips hooks": {"module_hooks"},
    "one slot": {"accumulation"},
    "doubles a leaf": {"input_gradient"},
    "doubles hooks": {"parameter_hooks"},
}
# Checks that look at what these undo as well.
ALSO = {
    "writes .grad": {"frozen", "second_derivative", "input_gradient"},
    "frees its input": {"shared_input", "input_gradient"},
    "one slot": {"output_in_place"},
    "loses": {"float32", "inverse"},
}


def workload(fault: str, **arguments: Any) -> Workload:
    named = "".join(f",{name}={value}" for name, value in arguments.items())
    model = (
        f"{network.__module__}:network(fault={fault.replace(' ', '_')}{named})"
        if fault
        else f"{network.__module__}:network"
    )
    return build_workload(Case(model=model, dtype="float64", batch_size=6))


def findings(built: Workload, *names: str) -> dict[str, Finding]:
    subject = Subject(built)
    return {name: check(subject, name) for name in names or CHECKS}


def test_every_check_is_declared_and_made() -> None:
    assert list(RUNS) == list(CHECKS)
    for one in CHECKS.values():
        assert one.question.endswith("?")
        assert one.means.endswith(".")
        assert one.mend.endswith(".")


def test_a_careful_strangers_chain_has_no_fault() -> None:
    found = findings(workload(""))
    assert {name: f.words for name, f in found.items() if f.verdict == "failed"} == {}
    assert {name for name, f in found.items() if f.verdict == "can't tell"} == {"twin", "inverse"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_no_other(fault: str) -> None:
    failed = {name for name, f in findings(workload(fault)).items() if f.verdict == "failed"}
    assert FAULTS[fault] <= failed
    assert failed <= FAULTS[fault] | ALSO.get(fault, set())


def test_what_is_wrong_in_any_case_is_left_out_of_the_rest() -> None:
    found = findings(workload("scales"), "gradient", "dropout", "frozen")
    assert "tensors are wrong, which the other checks leave out" in found["gradient"].words
    assert found["dropout"].verdict == "passed"


def test_a_check_that_nobody_knows() -> None:
    with pytest.raises(UserError, match="unknown check 'dropuot'; did you mean 'dropout'"):
        examine(workload(""), progress=lambda _: None, checks=["dropuot"])


@pytest.mark.parametrize("strategy", ["reconstructed", "checkpointed", "recursive"])
def test_none_in_ours(strategy: str) -> None:
    case = Case(model="revbench.zoo:revbench", strategy=strategy, dtype="float64", batch_size=6)
    found = findings(build_workload(case))
    failed = {name: f.words for name, f in found.items() if f.verdict == "failed"}
    assert set(failed) <= ({"memory"} if strategy != "reconstructed" else set())


@pytest.mark.parametrize("coupling", ["affine:tanh", "hamiltonian:0.5", "momentum:0.9", "midpoint:0.5", "leapfrog:0.5"])
def test_none_in_our_couplings(coupling: str) -> None:
    case = Case(
        model=f"revbench.peers:chain(kind=basic,blocks=2,coupling={coupling})",
        image_size=4,
        dtype="float64",
        batch_size=4,
    )
    names = (
        "gradient",
        "twin",
        "buffers",
        "dropout",
        "generator",
        "autocast",
        "input_gradient",
        "frozen",
        "accumulation",
    )
    found = findings(build_workload(case), *names)
    assert {name: f.words for name, f in found.items() if f.verdict != "passed"} == {}


def test_measured_like_any_probe_in_a_run() -> None:
    found = revbench.measure(
        f"{network.__module__}:network(fault=masks)", "doctor", options={"doctor": {"checks": ["gradient", "dropout"]}}
    )
    (row,) = found
    assert row.status == "ok"
    assert (row.metrics["passed"], row.metrics["failures"]) == (1, "dropout")


def test_measured_like_any_probe() -> None:
    heard: list[Any] = []
    found = examine(workload("masks"), progress=heard.append, checks=["gradient", "dropout", "twin"])
    assert found.metrics == {"passed": 1, "failed": 1, "unknown": 1, "failures": "dropout"}
    assert found.series["verdict"] == ["passed", "failed", "can't tell"]
    assert [message.get("begins") for message in heard[::2]] == ["gradient", "dropout", "twin"]
