"""Residual functions that do what others seldom do: the gradient is right, or there is one clear error."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.chains import relative_difference


def gradients(chain: nn.Module, x: Tensor, strategy: str) -> list[Tensor]:
    twin = copy.deepcopy(chain)
    twin.strategy = strategy  # type: ignore[assignment]
    torch.manual_seed(5)
    leaf = x.clone().requires_grad_()
    return list(torch.autograd.grad(twin(leaf).square().sum(), [leaf, *twin.parameters()]))


def check(chain: nn.Module, x: Tensor) -> None:
    chain = chain.double()
    expected = gradients(chain, x.double(), "stored")
    for strategy in STRATEGIES[1:]:
        assert relative_difference(gradients(chain, x.double(), strategy), expected) < 1e-9, strategy


class Checkpointed(nn.Module):
    def __init__(self, *, affine: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3, 3), nn.BatchNorm1d(3, affine=affine), nn.ReLU(), nn.BatchNorm1d(3, affine=affine)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.body, x, use_reentrant=False)
        return out


@pytest.mark.parametrize("affine", [True, False])
def test_a_checkpoint_inside(affine: bool) -> None:
    check(reversible([(Checkpointed(affine=affine), Checkpointed(affine=affine)) for _ in range(2)]), torch.randn(7, 6))


class Gate(nn.Module):
    """Returns a view that repeats itself, as squeeze-and-excitation does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))[:, :, None, None].expand_as(x)


class ChannelsLast(nn.Module):
    """Computes with the channels last and returns them to their place, as ConvNeXt does; looks at its input's layout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(x.shape[0] * x.shape[1], -1)
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + rows.mean(1).view(x.shape[0], -1, 1, 1)


@pytest.mark.parametrize("kind", [Gate, ChannelsLast])
def test_layouts(kind: type[nn.Module]) -> None:
    chain = reversible([(kind(), kind()) for _ in range(3)]).double()
    found = []
    for chain.strategy in STRATEGIES:
        x = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = chain(tuple(half.contiguous() for half in x.chunk(2, 1)))
        found.append(torch.autograd.grad(torch.cat(out, 1).square().sum(), [x, *chain.parameters()]))
    for one in found[1:]:
        assert relative_difference(one, found[0]) < 1e-9


class LastViews(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1).tanh().view(x.shape)


def test_a_last_function_that_looks_at_its_layout() -> None:
    """The joined output's halves are not laid out as what the last function was given."""
    chain = reversible([(nn.Identity(), nn.Conv2d(3, 3, 1)), (nn.Conv2d(3, 3, 1), LastViews())])
    check(chain, torch.randn(2, 6, 4, 4))


class Conditioned(nn.Module):
    condition: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.condition


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_tensor_from_outside_before_anything_needs_gradient(strategy: str) -> None:
    f = Conditioned()
    f.condition = nn.Linear(3, 3)(torch.randn(2, 3))
    chain = reversible([(f, nn.Linear(3, 3))], strategy=strategy)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="neither its input nor"):
        chain(torch.randn(2, 6)).sum().backward()


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_buffer_that_needs_gradient(strategy: str) -> None:
    f = Conditioned()
    f.register_buffer("condition", torch.ones(3))
    f.condition = nn.Linear(3, 3)(torch.randn(2, 3))
    chain = reversible([(f, nn.Linear(3, 3))], strategy=strategy)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"the buffer 'condition' of .* needs gradient"):
        chain(torch.randn(2, 6, requires_grad=True))


@pytest.mark.parametrize("channels", [2, 8])
def test_a_batch_norm_of_another_width_is_refused_as_under_stored(channels: int) -> None:
    for strategy in STRATEGIES:
        chain = reversible([(nn.BatchNorm2d(channels), nn.Identity())], strategy=strategy)
        with pytest.raises(RuntimeError, match="running_mean should contain"):
            chain(torch.randn(2, 8, 3, 3, requires_grad=True))


def test_a_global_hook_that_draws() -> None:
    def noise(module: nn.Module, args: object, out: Tensor) -> Tensor | None:
        return out * torch.rand_like(out) if isinstance(module, nn.Linear) else None

    handle = register_module_forward_hook(noise)
    try:
        check(reversible([(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(3)]), torch.randn(4, 6))
    finally:
        handle.remove()


class Keeping(nn.Linear):
    """Remembers what it was shown."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen, self.copy = x.detach(), x.detach().clone()
        return super().forward(x)


def test_what_a_function_keeps_is_not_written_over() -> None:
    chain = reversible([(Keeping(3, 3), Keeping(3, 3)) for _ in range(4)])
    chain(torch.randn(5, 6)).square().sum().backward()
    for block in chain.blocks:
        assert torch.equal(block.f.seen, block.f.copy)
        assert torch.equal(block.g.seen, block.g.copy)


class SometimesShallow(nn.Sequential):
    """Stochastic depth in the loop itself: made of layers that draw nothing."""

    def __iter__(self) -> Iterator[nn.Module]:
        return (module for module in super().__iter__() if torch.rand(()) < 0.5)


def test_a_sequence_that_draws_its_length() -> None:
    check(
        reversible([(SometimesShallow(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)), nn.Linear(3, 3))] * 4),
        torch.randn(4, 6),
    )


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.linspace(0, 1, 5000))
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.mask[100:103]


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = reversible([(Masked(), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(torch.cat((x, x.sin()), 1))
        return out[:, :3]


def test_a_chain_inside_a_function() -> None:
    check(reversible([(Nested(), Masked()) for _ in range(2)]), torch.randn(6, 6))


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.func.vmap(self.body)(x)
        return out


def test_a_transform_of_functions_inside() -> None:
    check(reversible([(Mapped(), Mapped()) for _ in range(2)]), torch.randn(4, 6))


def test_a_replaced_forward_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.BatchNorm1d, "forward", lambda self, x: x * 3)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x.tanh())
    check(reversible([(nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.ReLU()), nn.Linear(3, 3))]), torch.randn(4, 6))


def test_a_block_whose_forward_is_replaced_is_not_reconstructed() -> None:
    chain = reversible([(nn.Linear(3, 3), nn.Linear(3, 3))])
    block = chain.blocks[0]
    block.forward = lambda x1, x2: (x2, x1)  # type: ignore[assignment]
    x = torch.randn(2, 6)
    for chain.strategy in STRATEGIES:
        assert torch.equal(chain(x), torch.cat((x[:, 3:], x[:, :3]), 1)), chain.strategy
        assert torch.equal(chain(tuple(x.chunk(2, 1)))[0], x[:, 3:])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_function_is_refused() -> None:
    scripted = torch.jit.script(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="block 0's F holds a ScriptModule"):
        reversible([(scripted, nn.Linear(3, 3))])(torch.randn(2, 6))


def test_values_that_are_not_finite_by_chance() -> None:
    class Once(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Once.calls += 1
            return super().forward(x) + (torch.inf if Once.calls == 1 else 0.0)

    chain = reversible([(Once(3, 3), nn.Linear(3, 3))])
    with pytest.raises(FloatingPointError, match="but not when run again"):
        chain(torch.randn(2, 6))
