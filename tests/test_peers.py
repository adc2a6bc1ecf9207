"""The chains by which libraries are compared: the same network whoever reconstructs it."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from revbench import Case, UserError
from revbench.case.pairs import paired
from revbench.choices import CHAIN_KINDS, PEERS
from revbench.peers import ChainNetwork, chain
from revbench.suite_cases import chain_cases, contenders
from revbench.tiers import Plan
from revbench.workload import build_workload
from tests.backprop.chains import relative_difference


def gradients(network: ChainNetwork, strategy: str) -> list[Tensor]:
    network.chain.strategy = strategy  # type: ignore[assignment]
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(network(x), torch.arange(4))
    return list(
        torch.autograd.grad(loss, list(network.parameters())) if strategy == "stored" else _backward(network, loss)
    )


def _backward(network: ChainNetwork, loss: Tensor) -> list[Tensor]:
    """Other libraries want `backward`."""
    network.zero_grad()
    loss.backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # memcnn's
@pytest.mark.parametrize("kind", CHAIN_KINDS)
@pytest.mark.parametrize("library", ["revbench", *PEERS])
def test_every_library_gives_the_gradient_of_plain_autograd(library: str, kind: str) -> None:
    if library in PEERS and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install revbench[peers]")
    torch.manual_seed(0)
    network = chain(library, kind, 3).double()
    torch.manual_seed(0)
    ours = chain("revbench", kind, 3).double()
    assert [name.rpartition(".")[2] for name, _ in network.named_parameters()] == [
        name.rpartition(".")[2] for name, _ in ours.named_parameters()
    ]
    found, expected = gradients(network, "reconstructed"), gradients(ours, "stored")
    assert relative_difference(found, expected) < 1e-9
    assert relative_difference(gradients(network, "stored"), expected) < 1e-9


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("revbench.peers:chain(kind=wide)", "unknown kind of chain 'wide'"),
        ("revbench.peers:chain(library=revnet)", "unknown library 'revnet'"),
        ("revbench.peers:chain(depth=3)", "can't be called so"),
    ],
)
def test_a_mistake_is_named(model: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_workload(Case(model=model))


def test_a_library_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"memcnn is not installed; it is of the extra peers"):
        chain("memcnn")
    plan = Plan(tier="quick", device="cpu", data="digits", data_path="digits")
    unwatched = [case for case in contenders(plan) if case not in chain_cases(plan)]
    assert [case.model.replace(",tripwire=False)", ")") for case in unwatched] == list(
        dict.fromkeys(case.model for case in chain_cases(plan))
    )


@pytest.mark.parametrize("tier", ["quick", "full"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_cases_are_possible_and_different(tier: str, device: str) -> None:
    plan = Plan(tier=tier, device=device, data="digits", data_path="digits")
    cases = [case.check() for case in chain_cases(plan)]
    assert len({case.id for case in cases}) == len(cases)
    assert any(case.strategy == "torch_offload" for case in cases) == (device == "cuda")
    assert any(case.compile for case in cases) == (tier == "full")
    assert set(cases) < set(contenders(plan))
    assert len(paired(contenders(plan))) == len(CHAIN_KINDS)  # all ways of a kind of chain take turns
