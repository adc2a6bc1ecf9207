"""What enters a chain, and what surrounds it: right where plain autograd is right, else one clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Pairs, assert_as_plain


def half(width: int = 6, *, norm: bool = False) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(width, 8), nn.BatchNorm1d(8)] if norm else [nn.Linear(width, 8)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(8, width))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = half()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))


def pairs() -> Pairs:
    return [(half(), Own()) for _ in range(3)]


WEIGHTS = torch.arange(5.0, dtype=torch.float64).view(5, 1, 1)


def expanded(call: Any, chain: Any) -> dict[str, Any]:
    latent = torch.randn(1, 4, 12, dtype=torch.float64, requires_grad=True)
    y = call(latent.expand(5, -1, -1))
    (y.square() * WEIGHTS).sum().backward()
    return {"gradient": latent.grad, "y": y.detach()}


def one_tensor_as_both_halves(call: Any, chain: Any) -> dict[str, Any]:
    latent = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    y1, y2 = call((latent.expand(5, -1, -1),) * 2)
    (y1.square() + y2.square() * WEIGHTS).sum().backward()
    return {"gradient": latent.grad}


def overlapping_windows(call: Any, chain: Any) -> dict[str, Any]:
    signal = torch.randn(3, 40, dtype=torch.float64, requires_grad=True)
    call(signal.unfold(1, 12, 4)).square().sum().backward()
    return {"gradient": signal.grad}


def constant(call: Any, chain: Any) -> dict[str, Any]:
    y = call(torch.zeros((), dtype=torch.float64).expand(5, 4, 12))
    y.square().sum().backward()
    return {"y": y.detach()}


@pytest.mark.parametrize("use", [expanded, one_tensor_as_both_halves, overlapping_windows, constant])
def test_inputs_whose_elements_share_memory(use: Any) -> None:
    assert_as_plain(pairs, use, split_dim=2)


def small(norm: bool) -> Any:
    return lambda: [(half(3, norm=norm), half(3, norm=norm)) for _ in range(2)]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("vectorize", [False, True])
def test_jacobians(norm: bool, vectorize: bool) -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(2, 6, dtype=torch.float64)
        return {"jacobian": torch.autograd.functional.jacobian(call, x, vectorize=vectorize)}

    assert_as_plain(small(norm), use)


def test_a_batch_of_gradients_at_once() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
        y = call(x)
        (found,) = torch.autograd.grad(y, x, torch.randn(7, *y.shape, dtype=torch.float64), is_grads_batched=True)
        return {"gradients": found}

    assert_as_plain(small(False), use)


def per_sample(call: Any, chain: Any) -> dict[str, Any]:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain = chain

        def forward(self, x: Tensor) -> Tensor:
            return call(x)

    around = Around()

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(around, {f"chain.{k}": v for k, v in p.items()}, (x[None],)).square().sum()

    parameters = {name: p.detach() for name, p in chain.named_parameters()}
    return dict(vmap(grad(loss), in_dims=(None, 0))(parameters, torch.randn(4, 6, dtype=torch.float64)))


def by_jacrev(call: Any, chain: Any) -> dict[str, Any]:
    return {"jacobian": jacrev(call)(torch.randn(2, 6, dtype=torch.float64))}


def forward_mode(call: Any, chain: Any) -> dict[str, Any]:
    x = torch.randn(2, 6, dtype=torch.float64)
    with forward_ad.dual_level():
        return {"tangent": forward_ad.unpack_dual(call(forward_ad.make_dual(x, torch.ones_like(x)))).tangent}


@pytest.mark.filterwarnings("ignore:under .* a reversible chain runs by plain autograd", "ignore:.*torch.jit")
@pytest.mark.parametrize("use", [per_sample, by_jacrev, forward_mode])
def test_transforms(use: Any) -> None:
    assert_as_plain(small(False), use)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_tracing_goes_by_plain_autograd_and_says_so() -> None:
    for strategy in STRATEGIES[1:]:
        chain = reversible(small(False)(), strategy=strategy)
        x = torch.randn(2, 6)
        with pytest.warns(UserWarning, match=r"under torch\.jit\.trace a reversible chain runs by plain autograd"):
            traced = torch.jit.trace(chain, x)
        assert torch.allclose(traced(x + 1), chain(x + 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (None, TypeError, "one tensor or a pair of tensors as a tuple, not NoneType"),
        ((torch.ones(2, 3),), TypeError, "not tuple of 1"),
        (torch.ones(6), ValueError, r"shape \(6,\) has no dimension 1 .* split_dim"),
        (torch.ones(()), ValueError, r"has no dimension 1"),
        ((torch.ones(2, 3), torch.ones(2, 3).double()), ValueError, "the halves differ"),
    ],
)
def test_what_is_no_input_is_refused(strategy: Any, x: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        reversible(small(False)(), strategy=strategy)(x)


class Tuple(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Reentrant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.linear, x, use_reentrant=True)


class FSDPModule:
    """Named as the class that `fully_shard` adds to a module's bases."""


class Sharded(FSDPModule, Own):
    pass


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (Tuple, r"block 0's F returned a tuple; it must return one tensor, of the shape \(5, 6\)"),
        (Lazy, r"block 0's F holds a LazyLinear, which has no parameters yet; call the model once under torch.no_grad"),
        (Reentrant, "block 0's F holds a reentrant checkpoint.*use_reentrant=False"),
        (Sharded, "block 0's F is sharded by itself"),
    ],
)
def test_functions_that_are_refused(f: Any, words: str) -> None:
    chain = reversible([(f(), nn.Linear(6, 6))])
    with pytest.raises((ValueError, RuntimeError), match=words):
        chain(torch.randn(5, 12, requires_grad=True)).sum().backward()


def test_a_lazy_function_after_a_first_call() -> None:
    chain = reversible([(Lazy(), nn.Linear(6, 6))])
    x = torch.randn(5, 12)
    with torch.no_grad():
        chain(x)
    chain(x).sum().backward()
    assert chain.blocks[0].f.linear.weight.grad is not None


class Strides(nn.Module):
    """Notes how what it is shown lies in memory."""

    seen: list[tuple[int, ...]]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.stride())
        return x.tanh()


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("plain", [False, True])
def test_functions_see_one_layout_in_both_passes(strategy: Any, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's dropout draws other masks for another layout."""
    seen: dict[int, list[tuple[int, ...]]] = {}
    tanh = nn.Tanh.forward

    def noting(self: nn.Module, x: Tensor) -> Tensor:
        seen.setdefault(id(self), []).append(x.stride())
        return tanh(self, x)

    class Noting(nn.Tanh):
        forward = noting

    if plain:
        import revbench.backprop.plain as plain_modules

        monkeypatch.setattr(nn.Tanh, "forward", noting)
        monkeypatch.setitem(plain_modules._FORWARDS, nn.Tanh, noting)
    kind = nn.Tanh if plain else Noting
    for shape in ((8, 16), (2, 6, 4, 4)):
        for layout in (torch.contiguous_format, torch.channels_last):
            if len(shape) == 2 and layout is torch.channels_last:
                continue
            seen.clear()
            chain = reversible([(kind(), kind()) for _ in range(3)], strategy=strategy)
            chain(torch.randn(shape).contiguous(memory_format=layout).requires_grad_()).sum().backward()
            assert len(seen) == 6
            for strides in seen.values():
                assert len(strides) > 1
                assert len(set(strides)) == 1


@pytest.mark.filterwarnings("ignore:under torch.export a reversible chain runs by plain autograd")
@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="this PyTorch does not tell that it exports")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_exported_chain_can_be_trained(strategy: Any) -> None:
    chain = reversible([(Own(), Own())], strategy=strategy)
    x = torch.randn(5, 12)
    exported = torch.export.export(chain, (x,)).module()
    y, expected = exported(x), chain(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    found = {name: parameter.grad for name, parameter in exported.named_parameters()}
    chain.zero_grad()  # of the parameters that the two share
    expected.square().sum().backward()
    torch.testing.assert_close(found, {name: parameter.grad for name, parameter in chain.named_parameters()})
