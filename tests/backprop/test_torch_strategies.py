"""PyTorch's own ways stand beside the strategies: right gradients, and what they keep."""

from __future__ import annotations

import copy
import pickle
import shutil

import pytest
import torch
from torch import Tensor, nn

from revbench import build_model, reversible
from revbench.choices import TORCH_STRATEGIES
from tests.backprop.chains import basic_chain, relative_difference
from tests.backprop.test_memory import peak_above_steady


def gradients(model: torch.nn.Module, strategy: str) -> list[Tensor]:
    model.strategy = strategy  # type: ignore[assignment]
    model.zero_grad()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    model(x).square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["revnet-38", "resnet-32"])
@pytest.mark.parametrize("strategy", ["torch_checkpoint", "torch_selective"])
def test_gradients(name: str, strategy: str) -> None:
    model = build_model(name, image_size=8, strategy="stored").double()
    assert relative_difference(gradients(model, strategy), gradients(model, "stored")) < 1e-9


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
def test_a_budget_for_the_compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("TorchInductor needs a C++ compiler on the CPU")
    torch._dynamo.reset()
    chain = basic_chain(1, 8).double()
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    found = []
    for strategy in ("stored", "torch_budget", "torch_budget"):
        chain.strategy = strategy  # type: ignore[assignment]
        found.append(torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())))
    assert relative_difference(found[1], found[0]) < 1e-9
    assert relative_difference(found[2], found[0]) < 1e-9
    for twin in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        twin.strategy = "stored"
        assert (
            relative_difference(torch.autograd.grad(twin(x).square().sum(), list(twin.parameters())), found[0]) < 1e-9
        )
    torch._dynamo.reset()


def test_what_they_keep() -> None:
    """Of 18 half blocks: a checkpoint keeps the input of each block and the graph of one; selective also the convolutions."""
    stored, checkpoint, selective = (
        peak_above_steady(9, strategy, batch_size=4) for strategy in ("stored", "torch_checkpoint", "torch_selective")
    )
    assert checkpoint < 0.45 * stored
    assert checkpoint < selective < stored


@pytest.mark.parametrize("strategy", TORCH_STRATEGIES)
def test_without_gradient_they_are_the_units_alone(strategy: str) -> None:
    chain = basic_chain(2, 8).eval()
    x = torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        expected = chain(x)
        chain.strategy = strategy  # type: ignore[assignment]
        assert torch.equal(chain(x), expected)


class Randomised(nn.Module):
    """RReLU as a function, which no module shows."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rrelu(x, training=True)


@pytest.mark.parametrize("strategy", ["torch_checkpoint", "torch_selective"])
@pytest.mark.parametrize("kind", [nn.RReLU, Randomised])
def test_what_pytorch_draws_anew_is_unsupported(strategy: str, kind: type[nn.Module]) -> None:
    chain = reversible([(nn.Sequential(nn.Linear(4, 4), kind()), nn.Linear(4, 4))], strategy=strategy)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="other random slopes in backward"):
        chain(torch.randn(3, 8, requires_grad=True))


@pytest.mark.parametrize("strategy", ["torch_checkpoint", "torch_selective"])
def test_dropout_under_pytorchs_checkpoints_is_right(strategy: str) -> None:
    chain = reversible([(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), nn.Linear(4, 4)) for _ in range(3)]).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    found = []
    for chain.strategy in ("stored", strategy):
        torch.manual_seed(1)
        found.append(torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())))
    assert relative_difference(found[1], found[0]) < 1e-12


def test_dropout_under_the_compilers_budget_is_unsupported() -> None:
    if shutil.which("g++") is None:
        pytest.skip("TorchInductor needs a C++ compiler on the CPU")
    torch._dynamo.reset()
    chain = reversible([(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), nn.Linear(4, 4))], strategy="torch_budget")
    with pytest.raises(NotImplementedError, match="torch_budget draws random numbers anew in backward"):
        chain(torch.randn(3, 8) * 1)
    torch._dynamo.reset()


def test_offloading_says_where_it_makes_no_sense() -> None:
    chain = basic_chain(2, 8)
    chain.strategy = "torch_offload"  # type: ignore[assignment]
    with pytest.raises(NotImplementedError, match="on the CPU they are there"):
        chain(torch.randn(2, 8, 4, 4))


@pytest.mark.cuda
def test_offloading_on_a_gpu() -> None:
    model = build_model("revnet-38", image_size=8, strategy="stored").cuda()
    x = torch.randn(4, 3, 8, 8, device="cuda")
    found = []
    for strategy in ("stored", "torch_offload"):
        model.strategy = strategy  # type: ignore[assignment]
        found.append(torch.autograd.grad(model(x).square().sum(), list(model.parameters())))
    assert relative_difference(found[1], found[0]) < 1e-4
