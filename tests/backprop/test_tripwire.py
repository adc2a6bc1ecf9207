"""The tripwire raises for a function that changed between forward and backward, and for nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench import build_model, reversible
from revbench.backprop.fingerprint import PHASES, fingerprint
from revbench.backprop.suspicion import Suspicion
from revbench.backprop.tripwire import Tripwire
from revbench.choices import STRATEGIES
from tests.backprop.chains import relative_difference
from tests.backprop.structures import structures

OUTSIDE: dict[str, Any] = {}


class Linear(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)


class ReadsAGlobal(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * OUTSIDE["mask"].to(x.dtype)


class NumPysRandom(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * float(np.random.rand())  # noqa: NPY002 - the global one is what a network may draw from


class Linear6(Linear):
    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Box:
    value = 1.0


class KeepsAnObject(Linear):
    """A state in an object that an attribute holds; nothing tells how to copy that."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.box = Box()

    def forward(self, x: Tensor) -> Tensor:
        self.box.value += 1
        return self.linear(x) * self.box.value


class LendsItsLayer(Linear):
    """The layer stands in a list, so that what is changed in it is seen by nobody."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.hidden = [nn.Linear(width, width).requires_grad_(False)]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.hidden[0].to(x.dtype)(x)


def change_the_global() -> None:
    OUTSIDE["mask"] = 1 - OUTSIDE["mask"]


def change_one_number_of_the_global() -> None:
    OUTSIDE["mask"][3, 2] += 1.0


CHANGES: dict[str, tuple[type[Linear], Callable[[nn.Module], None]]] = {
    "a global": (ReadsAGlobal, lambda chain: change_the_global()),
    "one number of a global": (ReadsAGlobal, lambda chain: change_one_number_of_the_global()),
    "NumPy's random": (NumPysRandom, lambda chain: None),
    "an object": (KeepsAnObject, lambda chain: None),
    "a layer in a list": (LendsItsLayer, lambda chain: chain.blocks[1].f.hidden[0].weight.data.mul_(1.01)),  # type: ignore[index,operator,union-attr]
}


def back_propagate(name: str, strategy: Any, dtype: torch.dtype, *, tripwire: bool = True) -> list[Tensor | None]:
    kind, change = CHANGES[name]
    OUTSIDE["mask"] = (torch.rand(16, 6, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    torch.manual_seed(0)
    chain = reversible([(kind(6), kind(6)) for _ in range(4)], strategy=strategy, tripwire=tripwire).to(dtype)
    y = chain(torch.randn(16, 12, dtype=dtype, requires_grad=True))
    change(chain)
    y.float().square().sum().backward()
    return [p.grad for p in chain.parameters()]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CHANGES)
def test_a_function_that_changed(name: str, dtype: torch.dtype, strategy: str) -> None:
    with pytest.raises(
        RuntimeError, match=r"(block|unit) \d.* gave another value when backward ran it again.*chain\(x, "
    ):
        back_propagate(name, strategy, dtype)


class OfAnySize(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x / OUTSIDE["scale"])) * OUTSIDE["scale"] * OUTSIDE["gain"]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1e20), ("float32", 1e-23), ("float64", 1e160), ("float64", 1e-170)]
)
@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_values_whose_squares_no_dtype_holds(gain: float, dtype: str, scale: float, strategy: Any) -> None:
    torch.manual_seed(0)
    chain = reversible([(OfAnySize(6), OfAnySize(6)) for _ in range(2)], strategy=strategy).to(getattr(torch, dtype))
    OUTSIDE.update(scale=scale, gain=1.0)
    loss = (chain(torch.randn(5, 12, dtype=getattr(torch, dtype)) * scale) / scale).square().sum()
    OUTSIDE["gain"] = gain
    with pytest.raises(RuntimeError, match="gave another value") if gain != 1 else contextlib.nullcontext():
        loss.backward()


def test_an_input_of_zeros_hides_nothing() -> None:
    OUTSIDE.update(scale=1.0, gain=1.0)
    chain = reversible([(OfAnySize(6), OfAnySize(6)) for _ in range(3)]).double()
    halves = torch.randn(5, 6, dtype=torch.float64), torch.zeros(5, 6, dtype=torch.float64)
    loss = sum(y.square().sum() for y in chain(halves))
    for block in list(chain.blocks)[1:]:
        block.f, block.g = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    OUTSIDE["gain"] = 3.0
    with pytest.raises(RuntimeError, match="gave another value"):
        loss.backward()  # type: ignore[union-attr]


class Steps(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x + (torch.floor(x) - x).detach())) * OUTSIDE["gain"]


def test_a_function_known_to_be_steep_is_looked_at_once_in_a_while() -> None:
    torch.manual_seed(0)
    OUTSIDE["gain"] = 1.0
    chain = reversible([(Steps(6), Linear6()), (Linear6(), Linear6())]).double()
    for _ in range(12):  # integers: every number stands on a step
        chain(torch.randint(-3, 4, (5, 12)).double()).square().sum().backward()
    alarms = 0
    for _ in range(16):
        loss = chain(torch.randn(5, 12, dtype=torch.float64)).square().sum()
        OUTSIDE["gain"] = 1.1
        try:
            loss.backward()
        except RuntimeError:
            alarms += 1
        OUTSIDE["gain"] = 1.0
    assert alarms >= 2


def test_a_large_buffer_whose_first_silent_write_comes_late() -> None:
    """What the first call found is no longer taken for known after an alarm."""

    class Late(Linear):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.register_buffer("codes", torch.ones(8192))

        def forward(self, x: Tensor) -> Tensor:
            if OUTSIDE["late"]:
                self.codes.data.mul_(0.5)
            return self.linear(x) * self.codes.mean()

    chain = reversible([(Late(6), nn.Linear(6, 6))])
    x = torch.randn(16, 12)
    OUTSIDE["late"] = False
    chain(x).sum().backward()
    OUTSIDE["late"] = True
    with pytest.raises(RuntimeError, match="block 0's F gave another value"):
        chain(x).sum().backward()
    chain(x).sum().backward()


@pytest.mark.parametrize("name", ["a global", "an object"])
def test_large_changes_are_seen_in_bfloat16_too(name: str) -> None:
    with pytest.raises(RuntimeError, match="gave another value"):
        back_propagate(name, "reconstructed", torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "why"), [("a global", "was changed in between"), ("NumPy's random", "differs from itself")]
)
def test_it_tells_what_it_can(name: str, why: str) -> None:
    with pytest.raises(RuntimeError, match=f"block 3's G gave another value .*{why}"):
        back_propagate(name, "reconstructed", torch.float32)


@pytest.mark.parametrize("seed", [378, 3219])
def test_random_numbers_that_are_close_by_chance_explain_nothing(seed: int) -> None:
    """Two draws in a row that differ by less than a hundredth: the function seems to be the same, and a moved input to matter."""
    np.random.seed(seed)  # noqa: NPY002
    with pytest.raises(RuntimeError, match="differs from itself"):
        back_propagate("NumPy's random", "reconstructed", torch.float32)


def test_it_can_be_switched_off() -> None:
    wrong = back_propagate("a global", "reconstructed", torch.float64, tripwire=False)
    OUTSIDE["mask"] = torch.ones(16, 6)
    assert relative_difference(wrong, back_propagate("a global", "stored", torch.float64)) > 0.01


@pytest.mark.parametrize("name", CHANGES)
def test_on_a_gpu_it_is_judged_at_the_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, on the CPU: all is read once, and a suspicion is settled by going forward again."""
    plain = Tripwire.__init__
    monkeypatch.setattr(Tripwire, "__init__", lambda self, epsilon, immediate: plain(self, epsilon, immediate=False))
    looked: list[int] = []
    judge = Tripwire.judge
    monkeypatch.setattr(Tripwire, "judge", lambda self: looked.append(len(self._unread)) or judge(self))
    with pytest.raises(RuntimeError, match=r"block \d's [FG] gave another value"):
        back_propagate(name, "reconstructed", torch.float32)
    assert looked == [8]


def test_on_a_gpu_steep_functions_are_explained_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Tripwire.__init__
    monkeypatch.setattr(Tripwire, "__init__", lambda self, epsilon, immediate: plain(self, epsilon, immediate=False))
    settled: list[Suspicion] = []
    settle = Suspicion.settle
    monkeypatch.setattr(Suspicion, "settle", lambda self, *args: (settle(self, *args), settled.append(self)))

    class Rounded(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).to(torch.bfloat16).to(x.dtype)

    chain = reversible([(Rounded(16), Rounded(16)) for _ in range(8)])
    chain(torch.randn(64, 32)).square().sum().backward()
    assert all(suspicion.explained for suspicion in settled)


@pytest.mark.parametrize("how", [lambda y: y.data.mul_(1.001), lambda y: y.detach().numpy().__setitem__((0, 0), 5.0)])
@pytest.mark.parametrize("pair", [False, True])
def test_an_output_that_was_changed_behind_the_version_counter(how: Callable[[Tensor], None], pair: bool) -> None:
    chain = reversible([(nn.Linear(6, 6), nn.Linear(6, 6))])
    x = torch.randn(4, 12, requires_grad=True)
    out = chain(tuple(x.chunk(2, 1)) if pair else x)
    how(out[0] if pair else out)
    with pytest.raises(RuntimeError, match="output of a reversible chain was changed between forward and backward"):
        (out[0] + out[1] if pair else out).sum().backward()


@pytest.mark.filterwarnings("ignore:reconstruction has lost the activations")  # which is said, too
def test_a_growth_that_reconstruction_does_not_stand_is_warned_of() -> None:
    def half() -> nn.Module:
        layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        for layer in (layers[0], layers[2]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return layers

    chain = reversible([(half(), half()) for _ in range(12)])
    words = (
        r"of 24 half blocks is [12]\.\de\+04 times as large as its input.*normalisation, use float64, or set strategy"
    )
    with pytest.warns(UserWarning, match=words):
        chain(torch.randn(32, 128)).square().mean().backward()
    chain(torch.randn(32, 128)).square().mean().backward()  # once
    chain.double()(torch.randn(32, 128).double()).square().mean().backward()


@given(st.data())
@settings(max_examples=30)
def test_fingerprints_are_linear_and_estimate_norms(data: st.DataObject) -> None:
    shape = data.draw(
        st.sampled_from([(7,), (40, 3), (12, 7, 5, 5), (128, 64), (4, 64, 32, 32), (70, 251), (600, 500)])
    )
    phase = data.draw(st.integers(0, PHASES - 1))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    of_a, of_b = fingerprint(a, None, phase)[0], fingerprint(b, None, phase)[0]
    assert torch.allclose(fingerprint(a - 3 * b, None, phase)[0], of_a - 3 * of_b)
    read = of_a.norm() / a.norm()
    assert 0.2 / PHASES**0.5 < read < 3
    if len(shape) == 4:  # how a tensor lies in memory is noted, and held to
        last = a.contiguous(memory_format=torch.channels_last)
        found, order = fingerprint(last, None, phase)
        assert torch.allclose(found, fingerprint(a, order, phase)[0])


def test_every_number_is_read_in_some_phase() -> None:
    for count in (1, 5, 200, 7000, 16_100, 300_000):
        seen = torch.zeros(count, dtype=torch.bool)
        for phase in range(PHASES):
            ramp = torch.arange(1, count + 1, dtype=torch.float64)
            ones = fingerprint(torch.ones(count, dtype=torch.float64), None, phase)[0]
            sums = fingerprint(ramp, None, phase)[0]
            run = int(ones[0])
            for first in ((sums - run * (run - 1) / 2) / run - 1).round().long().tolist():
                seen[first : first + run] = True
        assert seen.all(), count


def test_values_whose_rows_add_up_to_nothing_are_seen() -> None:
    """As after layer norm, of any width."""
    for width in (2, 3, 7, 13, 31, 61, 64, 127, 251, 502):
        x = nn.functional.layer_norm(torch.randn(256, width, generator=torch.Generator().manual_seed(1)), (width,))
        assert fingerprint(x)[0].norm() > 0.05 * x.norm()


def step(chain: nn.Module, x: Tensor, strategy: str, autocast: bool) -> None:
    chain.strategy = strategy  # type: ignore[assignment]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = chain(x)
    y.float().square().mean().backward()


@pytest.mark.filterwarnings(
    "ignore:the output of a reversible chain of",
    "ignore:reconstruction has lost the activations",
    "ignore:Mismatch dtype between input and weight",
)
@given(structures())
@settings(max_examples=150)
def test_random_structures_raise_no_alarm(structure: Any) -> None:
    """10,000 of them under the profile ``slow``."""
    chain, x, strategy, autocast = structure
    try:
        step(chain, x, strategy, autocast)
    except FloatingPointError:
        return  # it overflowed, and that was said


@pytest.mark.slow
@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
@pytest.mark.parametrize("name", ["revnet-38", "revnet-164"])
def test_a_thousand_steps_of_training_raise_no_alarm(name: str, autocast: str) -> None:
    model = build_model(name, image_size=8, units=(2, 1, 1) if name == "revnet-164" else (3, 3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(1000):
        images, labels = torch.randn(8, 3, 8, 8), torch.randint(10, (8,))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast != "none"):
            loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
