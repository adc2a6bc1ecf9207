"""The doctor finds each fault that is planted in a stranger's chain, and no other; none in ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import mse_loss

import revbench
from revbench.case import Case
from revbench.checkup.checks import RUNS, check
from revbench.checkup.declared import CHECKS, Finding
from revbench.checkup.examining import examine
from revbench.checkup.subject import Subject
from revbench.errors import UserError
from revbench.workload import Workload, build_workload
from tests.checkup.faulty import Network, network

# By the fault: the checks that must fail. What is undone along with it may fail, too.
FAULTS = {
    "masks": {"dropout", "generator"},
    "masks of calls": {"dropout", "generator"},
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
    "freezes casts": {"autocast_cache"},
    "counts gradients": {"frozen"},
    "writes its input": {"shared_input"},
    "inverts by adding": {"inverse"},
    "doubles in float32": {"float32"},
}
# Checks that look at what these undo as well.
ALSO = {
    "writes .grad": {"frozen", "second_derivative", "input_gradient"},
    "frees its input": {"shared_input", "input_gradient"},
    "one slot": {"output_in_place"},
    "loses": {"float32", "inverse"},
    "writes its input": {"readable", "input_gradient"},
    "doubles in float32": {"depth", "autocast", "autocast_cache"},
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


def test_every_check_must_find_a_fault() -> None:
    own_ways = {"twin"}  # see `test_own_ways.py`
    assert set().union(*FAULTS.values()) | own_ways == set(CHECKS)


def test_an_inverse_that_is_right() -> None:
    assert findings(workload("inverts"), "inverse")["inverse"].verdict == "passed"


def test_dropouts_that_are_called_as_functions_are_the_networks_own() -> None:
    found = findings(workload("keeps of calls"), "gradient", "dropout", "determinism")
    assert {name: f.verdict for name, f in found.items()} == dict.fromkeys(found, "passed")
    assert found["dropout"].words == "it is right, with its own 4 dropouts"


def test_random_numbers_that_are_no_dropouts_are_named_where_the_gradient_is_wrong() -> None:
    found = check(Subject(workload("masks of noise")), "gradient")
    assert found.verdict == "failed"
    assert "it draws random numbers that are no dropout's" in found.words
    assert findings(workload("keeps of noise"), "gradient")["gradient"].verdict == "passed"


def test_dropouts_outside_the_blocks_say_nothing_of_those_inside() -> None:
    built = workload("masks")
    built.model.head = nn.Sequential(nn.Dropout(0.1), built.model.head)
    found = check(Subject(built), "dropout")
    assert found.verdict == "failed"
    assert found.words.startswith("4 masks in backward are not those of forward")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_no_gradient_blamed_for_it(fault: str) -> None:
    found = findings(workload(fault), *(FAULTS[fault] | {"gradient"}))
    assert {name for name, f in found.items() if f.verdict == "failed"} == FAULTS[fault]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_no_other(fault: str) -> None:
    failed = {name for name, f in findings(workload(fault)).items() if f.verdict == "failed"}
    assert FAULTS[fault] <= failed
    assert failed <= FAULTS[fault] | ALSO.get(fault, set())


def test_what_is_wrong_in_any_case_is_left_out_of_the_rest() -> None:
    found = findings(workload("scales"), "gradient", "dropout", "frozen")
    assert "tensors are wrong, which the other checks leave out" in found["gradient"].words
    assert "random numbers" not in found["gradient"].words
    assert found["dropout"].verdict == "passed"


def test_a_check_that_nobody_knows() -> None:
    with pytest.raises(UserError, match="unknown check 'dropuot'; did you mean 'dropout'"):
        examine(workload(""), progress=lambda _: None, checks=["dropuot"])


def test_what_is_compiled_is_compiled_in_each_check() -> None:
    subject = Subject(build_workload(Case(model=f"{network.__module__}:compiled", dtype="float64", batch_size=6)))
    for name in ["gradient", "frozen", "accumulation"] * 2:
        before = counters["frames"]["ok"]
        assert check(subject, name).verdict == "passed"
        assert counters["frames"]["ok"] > before
    assert check(subject, "memory").words == "it is compiled, and what compiled code keeps is not seen"


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
        "inverse",
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


class Small(Network):
    """Its head is small, as networks begin: what is behind the blocks outweighs what is in them."""

    def __init__(self, fault: str) -> None:
        super().__init__(2, fault)
        with torch.no_grad():
            self.head.weight.mul_(0.002)


def made(model: nn.Module, inputs: Any, targets: Tensor, loss: Any) -> Subject:
    """A network of this file's own."""
    case = Case(model="tests.checkup.test_checks:nowhere", dtype="float64", batch_size=len(targets))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return Subject(Workload(case, model.double(), lambda *_: (inputs, targets), loss, optimizer, True))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_a_wrong_gradient_inside_is_not_hidden_by_a_large_one_outside() -> None:
    torch.manual_seed(0)
    found = check(made(Small("scales"), drawn(6, 3), drawn(6, 2), mse_loss), "gradient")
    assert found.verdict == "failed"
    assert "inside the blocks" in found.words


def test_what_is_known_need_not_be_asked_for_first() -> None:
    assert check(Subject(workload("scales")), "frozen").verdict == "passed"


def test_kinks_and_zeros_are_no_faults() -> None:
    torch.manual_seed(1)
    wide = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 4))
    subject = made(wide, drawn(64, 64), drawn(64, 4), mse_loss)
    assert {name: check(subject, name).verdict for name in ("gradient", "second_derivative")} == {
        "gradient": "passed", "second_derivative": "passed",
    }  # fmt: skip
    normed = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, affine=False))
    assert check(made(normed, drawn(6, 3), drawn(6, 8), mse_loss), "frozen").verdict == "passed"


def test_outputs_that_can_not_be_added_are_called_twice_all_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid())
    found = check(made(model, drawn(6, 3), drawn(6, 2).sigmoid(), nn.BCELoss()), "accumulation")
    assert found.verdict == "passed", found.words


class Masked(nn.Module):
    """Its functions read a mask that the network is given beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = revbench.reversible([(Gate(), Gate()) for _ in range(2)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = self.blocks(x, mask=mask)
        return y


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        value: Tensor = self.linear(x).tanh() * mask
        return value


def test_an_inverse_is_given_what_forward_was_given_by_name() -> None:
    torch.manual_seed(0)
    found = check(made(Masked(), (drawn(6, 8), (drawn(6, 1) > 0).double()), drawn(6, 8), mse_loss), "inverse")
    assert found.verdict == "passed", found.words


class OneState(nn.Module):
    """Dropout behind two functions, whose masks change places in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Swapped.apply(self, x, *self.f.parameters(), *self.g.parameters())
        return y


class _Swapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: OneState, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.module, ctx.state = module, torch.get_rng_state()
        ctx.save_for_backward(x)
        y: Tensor = module.f(x) + module.g(x)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        after = torch.get_rng_state()
        torch.set_rng_state(ctx.state)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = ctx.module.g(leaf) + ctx.module.f(leaf)
        torch.set_rng_state(after)
        wanted = [leaf, *ctx.module.f.parameters(), *ctx.module.g.parameters()]
        return None, *torch.autograd.grad(y, wanted, grad)


def test_masks_that_change_places_are_other_masks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), OneState(), nn.Linear(4, 2))
    found = check(made(model, drawn(6, 3), drawn(6, 2), mse_loss), "dropout")
    assert found.verdict == "failed", found.words


def test_a_position_on_the_root_does_not_hide_what_gets_no_gradient() -> None:
    class Positioned(Network):
        def __init__(self) -> None:
            super().__init__(2, "writes .grad")
            self.position = nn.Parameter(torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.chain(self.stem(x) + self.position))
            return logits

    torch.manual_seed(0)
    found = check(made(Positioned(), drawn(6, 3), drawn(6, 2), mse_loss), "input_without_gradient")
    assert found.verdict == "failed", found.words
