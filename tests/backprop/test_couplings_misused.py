"""Names of couplings, and what does not fit one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop.couplings import Affine, Leapfrog, Midpoint, Momentum, coupling_of
from revbench.backprop.rules import Linear
from revbench.choices import COUPLINGS
from revbench.errors import UserError
from revbench.paper.couplings import parse_coupling
from tests.backprop.formulas import Function, chain_of, waves


def test_a_scale_that_vanishes_is_refused_by_name() -> None:
    chain = reversible([(Function(returns=12), Function(returns=12)) for _ in range(3)], coupling="affine:exp").double()
    with torch.no_grad():
        chain.blocks[1].g.body[-1].bias[:6] = -2000.0  # type: ignore[index,union-attr]
    with pytest.raises(FloatingPointError, match="block 1's G gave a scale that is 0 to rounding, infinite or NaN"):
        chain(torch.randn(5, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reversible([], coupling="additiv"), "unknown coupling 'additiv'; did you mean 'additive'"),
        (lambda: reversible([], coupling="momentum:1"), "momentum:1: its number must be between 0 and 1"),
        (lambda: reversible([], coupling="midpoint:x"), "midpoint:x: its number must be above 0"),
        (lambda: reversible([], coupling="additive:2"), "additive has nothing to be given"),
        (lambda: reversible([], coupling="affine:tan"), "unknown scale of an affine coupling 'tan'"),
        (lambda: reversible([], coupling=3), "coupling=3 must be a name"),  # type: ignore[arg-type]
        (lambda: reversible([nn.Linear(2, 2)]), "block 0 of a reversible chain must be a pair"),
        (lambda: reversible([()], coupling="midpoint"), "block 0 of a reversible chain must be one or more"),
        (
            lambda: reversible([(nn.Linear(2, 2),) * 2, (nn.Linear(2, 2),) * 3]),
            "block 1 has 3 functions and block 0 has 2",
        ),
        (lambda: Momentum(0.0), "momentum:0: its number"),
        (lambda: Midpoint(-1.0), "midpoint:-1: its number must be above 0"),
        (lambda: Leapfrog(float("nan")), "leapfrog:nan"),
        (lambda: parse_coupling("hamiltonian:1:forget"), "may stand :forget, of momentum, midpoint, leapfrog"),
        (lambda: parse_coupling("midpoint:0.5:forgets"), "like midpoint:0.5:forget"),
        (lambda: Linear(keep=0.0), r"Linear\(keep=0.0, take=0.0, scale=1.0\) can't be inverted"),
        (lambda: Linear(scale=float("inf")), "each must be a finite number"),
        (lambda: Affine("log"), "unknown scale"),  # type: ignore[arg-type]
    ],
)
def test_couplings_that_can_not_be(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["additive", "affine:exp", "momentum:0.95", "hamiltonian:0.1", "midpoint:1e-05", "leapfrog:0.5:forget"]
)
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    assert str(parse_coupling(name)) == name


def test_a_coupling_that_forgets_is_one() -> None:
    for name in ("momentum:0.9", "midpoint:0.3", "leapfrog:0.5"):
        keeping, forgetting = coupling_of(name), coupling_of(f"{name}:forget")
        assert (keeping.keeps_first, forgetting.keeps_first) == (True, False)
        assert str(forgetting.named) == f"{name}:forget"


@pytest.mark.parametrize("word", COUPLINGS)
def test_a_word_alone_has_a_number_of_its_own(word: str) -> None:
    written = str(parse_coupling(word))
    assert written == word if word == "additive" else written.startswith(f"{word}:")
    assert str(parse_coupling(written)) == written


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 7), "size 7 of dimension 1 is no multiple of its 3 streams"),
        ((torch.ones(2, 3),) * 2, "one tensor or 3 tensors as a tuple, not tuple of 2"),
    ],
)
def test_what_does_not_fit_three_streams(x: Any, message: str) -> None:
    chain = reversible([tuple(Function() for _ in range(3))])
    with pytest.raises((TypeError, ValueError), match=message):
        chain(x)


def test_an_affine_function_must_return_scale_and_shift() -> None:
    with pytest.raises(ValueError, match=r"of the shape \(5, 12\): scale and shift of a stream of shape \(5, 6\)"):
        reversible([(Function(), Function())], coupling="affine").double()(torch.randn(5, 12, dtype=torch.float64))


def test_what_entered_is_kept_and_may_not_be_changed() -> None:
    chain, x = chain_of("midpoint:0.3"), torch.randn(5, 6, dtype=torch.float64).requires_grad_()
    inner = x * 1.5
    y = chain(inner)
    with torch.no_grad():
        inner.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place between forward and backward, and its coupling keeps it"):
        y.sum().backward()


def test_a_coupling_is_an_object_of_its_own() -> None:
    assert Midpoint(0.3) == Midpoint(0.3) != Midpoint(0.4)


def test_a_hook_on_any_of_the_streams_is_refused() -> None:
    class Hooks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, y: Tensor, z: Tensor) -> Tensor:
            if z.requires_grad:
                z.register_hook(lambda g: g * 0.5)
            return self.linear(y * z).tanh()

    chain = reversible([tuple(Hooks() for _ in range(3)) for _ in range(2)]).double()
    with pytest.raises(RuntimeError, match="hooks the gradient of its input"):
        chain(waves(5, 18).requires_grad_())


def test_arguments_of_a_second_function_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="g_kwargs are of each block's second function, and here a block has one"):
        chain_of("midpoint:0.3")(waves(5, 6), g_kwargs={"mask": None})
