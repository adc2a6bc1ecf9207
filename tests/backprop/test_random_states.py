"""Random numbers are drawn again, whoever else draws meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import revbench.backprop.random_states as random_states_module
from revbench import reversible
from revbench.backprop.random_states import OTHERS, OwnGenerators, others_may_draw, random_states
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Linear, assert_as_plain, once, three

CPU = torch.device("cpu")
X = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))

DRAWS: dict[str, Callable[[], Tensor]] = {
    "dropout": lambda: F.dropout(X, 0.4),
    "dropout1d": lambda: F.dropout1d(X[None], 0.4),
    "alpha_dropout": lambda: F.alpha_dropout(X, 0.3, True),
    "rrelu": lambda: F.rrelu(X, training=True),
    "rand": lambda: torch.rand(5),
    "randn": lambda: torch.randn(5, 6, dtype=torch.float64),
    "randint": lambda: torch.randint(10, (5,)),
    "rand_like": lambda: torch.rand_like(X),
    "randn_like": lambda: torch.randn_like(X, dtype=torch.float64),
    "randint_like": lambda: torch.randint_like(X, 5),
    "randperm": lambda: torch.randperm(9),
    "bernoulli": lambda: torch.bernoulli(torch.full((9,), 0.4)),
    "bernoulli_": lambda: torch.empty(9).bernoulli_(0.4),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 4),
    "poisson": lambda: torch.poisson(torch.ones(9)),
    "normal": lambda: torch.normal(torch.zeros(3), torch.ones(3)),
    "exponential_": lambda: torch.empty(4).exponential_(),
    "gumbel_softmax": lambda: F.gumbel_softmax(X),
    "attention": lambda: F.scaled_dot_product_attention(X[None, None], X[None, None], X[None, None], dropout_p=0.4),
    "fractional pooling": lambda: F.fractional_max_pool2d(X[None, None], 2, output_ratio=(0.5, 0.5)),
    "Beta": lambda: torch.distributions.Beta(2.0, 3.0).sample((4,)),
    "Dirichlet": lambda: torch.distributions.Dirichlet(torch.ones(3)).sample(),
    "binomial": lambda: torch.binomial(torch.full((4,), 10.0), torch.full((4,), 0.3)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_generators_of_its_own_give_the_numbers_of_the_global_one(name: str) -> None:
    torch.manual_seed(3)
    states = random_states(CPU)
    expected, end = DRAWS[name](), torch.get_rng_state()
    torch.manual_seed(99)
    there = torch.get_rng_state()
    with OwnGenerators(states) as own:
        found = DRAWS[name]()
    assert torch.equal(found, expected)
    assert torch.equal(own.states()[CPU], end)
    assert torch.equal(torch.get_rng_state(), there)


@contextmanager
def drawing_thread(seen: list[float]) -> Iterator[None]:
    """Another thread that draws from the global generator all the time, as a loader does that augments images."""
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            seen.append(float(torch.rand(8, dtype=torch.float64)[0]))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def half() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 32, bias=False), nn.Dropout(0.5))


class Noisy(nn.Module):
    """Homogeneous of degree 1, as what is above."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * torch.rand_like(x))


def gradient_error(chain: nn.Module, seed: int) -> float:
    """A function that is linear in x for fixed random numbers has ``x · gradient = value``."""
    x = torch.randn(16, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    loss = chain(x).sum()
    loss.backward()
    assert x.grad is not None
    return (((x.grad * x).sum() - loss).abs() / loss.abs()).item()


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("kind", [half, Noisy])
def test_another_thread_that_draws_changes_no_gradient(
    strategy: str, kind: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = reversible([(kind(), kind()) for _ in range(4)], strategy=strategy).double()  # type: ignore[arg-type]
    monkeypatch.setattr(OTHERS, "have_drawn", False)
    seen: list[float] = []
    with drawing_thread(seen):
        while not OTHERS.have_drawn:
            assert gradient_error(chain, 0) < 1e-9
        seen.clear()
        errors = [gradient_error(chain, seed) for seed in range(10)]
    assert max(errors) < 1e-9
    assert len(seen) == len(set(seen))  # and that thread saw no number twice


def test_two_models_in_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OTHERS, "have_drawn", False)
    errors: dict[int, float] = {}

    def train(number: int) -> None:
        chain = reversible([(half(), Noisy()) for _ in range(4)]).double()
        errors[number] = max(gradient_error(chain, seed) for seed in range(10))

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(errors) == [0, 1]
    assert max(errors.values()) < 1e-9


def test_with_an_idle_thread_the_numbers_are_those_of_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OTHERS, "have_drawn", False)
    chain = reversible([(half(), Noisy()) for _ in range(3)])
    x = torch.randn(4, 64)
    found = []
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert others_may_draw(but=threading.get_ident())
        for chain.strategy in STRATEGIES:
            torch.manual_seed(5)
            chain(x).sum().backward()
            found.append((chain(x).detach(), torch.get_rng_state()))
    finally:
        stop.set()
        thread.join()
    for out, state in found[1:]:
        assert torch.equal(out, found[0][0])
        assert torch.equal(state, found[0][1])


class SometimesDetached(Linear):
    """Python's own random numbers decide about the gradient alone."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x))
        return y.detach() if random.random() < 0.5 else y * random.uniform(0.5, 1.5)


def test_pythons_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thread that an earlier test left behind would change whose numbers are drawn.
    monkeypatch.setattr(random_states_module, "others_may_draw", lambda but: False)

    def use(call: Any, chain: Any) -> dict[str, Any]:
        random.seed(3)
        found = once(call, chain)
        return found | {"next": random.random()}

    assert_as_plain(three(SometimesDetached), use)


class ForksTheGenerator(Linear):
    """Draws for the gradient alone, and puts the generator back itself."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x))
        with torch.random.fork_rng(devices=[]):
            keep = (torch.rand_like(y) < 0.5).to(y.dtype)
        return y * keep + (y * (1 - keep)).detach()


def test_numbers_whose_drawing_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thread that an earlier test left behind would change whose numbers are drawn.
    monkeypatch.setattr(random_states_module, "others_may_draw", lambda but: False)

    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        torch.rand(1)
        y.square().sum().backward()
        return {"gradient of x": x.grad, "next": torch.rand(3)}

    assert_as_plain(three(ForksTheGenerator), use)
