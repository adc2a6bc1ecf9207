"""Each F, G and unit is compiled, whole, and the gradients stay right under every strategy."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from revbench import build_model, reversible
from revbench.backprop import StrategyModule
from revbench.choices import STRATEGIES
from tests.backprop.chains import relative_difference

# PyTorch's own, while it compiles for an input that is no leaf.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> object:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def half() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3))


def gradients(model: StrategyModule, x: Tensor, strategy: str) -> list[Tensor]:
    model.strategy = strategy  # type: ignore[assignment]
    model.zero_grad()
    model(x).square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_every_piece_of_a_network_is_compiled_once_and_whole() -> None:
    """More than eight pieces: PyTorch's limit of compilations is by code object, and each has its own."""
    model = build_model("revnet-38", image_size=8)
    pieces = model.pieces()
    assert len(pieces) == 18  # stem, 7 reversible blocks of two, 2 units that change the shape, head
    counter = CompileCounterWithBackend("eager")
    assert model.compile_pieces(backend=counter) == 18
    assert model.compile_pieces(backend=counter) == 0
    twin = build_model("revnet-38", image_size=8)
    twin.load_state_dict(model.state_dict())  # the names are the same
    x = torch.randn(4, 3, 8, 8)
    torch._dynamo.utils.counters.clear()
    found = gradients(model, x, "reconstructed")
    # F and G twice, without gradient and with; the others once.
    assert counter.frame_count == 14 * 2 + 4
    assert gradients(model, x, "reconstructed")
    assert counter.frame_count == 14 * 2 + 4  # nothing is compiled again
    assert not torch._dynamo.utils.counters["graph_break"]
    assert relative_difference(found, gradients(twin, x, "stored")) < 1e-4
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert a == 2 * b == 2


def test_a_break_in_a_piece_is_an_error() -> None:
    class Printing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return super().forward(x)

    chain = reversible([(Printing(3, 3), nn.Linear(3, 3))])
    chain.compile_pieces(backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        chain(torch.randn(2, 6))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_gradients_in_float64(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("TorchInductor needs a C++ compiler on the CPU")
    chain = reversible([(half(), half()), (nn.Linear(3, 3), half())]).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    reference = gradients(copy.deepcopy(chain), x, "stored")
    counter = CompileCounterWithBackend(backend)
    chain.compile_pieces(backend=counter)
    for strategy in STRATEGIES if backend == "aot_eager" else ("reconstructed",):
        assert relative_difference(gradients(chain, x, strategy), reference) < 1e-9, strategy
    assert counter.frame_count >= 4


def test_a_compiled_chain_is_copied_uncompiled() -> None:
    chain = reversible([(half(), half())])
    chain.compile_pieces(backend="eager")
    assert all(piece._compiled_call_impl is None for piece in copy.deepcopy(chain).pieces())


def test_a_whole_model_may_be_compiled_around_a_chain() -> None:
    """`torch.compile` of everything: the chain stays a piece of Python that it steps over."""
    net = nn.Sequential(nn.Linear(6, 6), reversible([(half(), half())]), nn.Linear(6, 2)).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    twin = copy.deepcopy(net)
    twin[1].strategy = "stored"
    twin(x).square().sum().backward()
    torch.compile(net, backend="aot_eager")(x).square().sum().backward()
    found, expected = ([p.grad for p in m.parameters()] for m in (net, twin))
    assert relative_difference(found, expected) < 1e-9
    assert net[1].blocks[0].f[0].num_batches_tracked == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_many_lengths(strategy: str) -> None:
    """Text sorted by length, a smaller last batch, training and evaluation in turn: more sizes than PyTorch compiles for."""
    chain = reversible([(half(), half()) for _ in range(2)], strategy=strategy).double()  # type: ignore[arg-type]
    plain = copy.deepcopy(chain)
    counter = CompileCounterWithBackend("eager")
    chain.compile_pieces(backend=counter)
    for batch in (*range(3, 15), 7, 3):
        x = torch.randn(batch, 6, dtype=torch.float64)
        assert relative_difference(gradients(chain, x, strategy), gradients(plain, x, "stored")) < 1e-9
    assert counter.frame_count < 4 * 8  # PyTorch's limit for each piece; there are twelve sizes
