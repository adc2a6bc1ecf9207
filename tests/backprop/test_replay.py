"""What the second call reuses gives the bits, the gradients and the buffers of a call that computes everything."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop.ownership import gradient_is_ours, memory_is_ours, try_out_gradients
from revbench.backprop.recording import Recording
from revbench.backprop.replay import _KnownStatistics, _ThriftyRelu
from revbench.backprop.structure import Structures
from revbench.backprop.surroundings import Surroundings
from revbench.choices import STRATEGIES
from tests.backprop.chains import relative_difference


@pytest.fixture(autouse=True)
def _also_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revbench.backprop.replay._SMALL", 0)


NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def recompute(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A module's output in the first call and in the second."""
    recording = Recording(
        module, "m", pytorch_is_whole=True, surroundings=Surroundings(x.device), structures=Structures()
    )
    with torch.no_grad():
        first = recording.first(x, needs=(False,))
    return first, recording.once_more((x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5), (96, 5), (8, 5, 12), (4, 5, 4, 6), (4, 5, 3, 3, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_known_statistics_give_the_bits_of_the_first_call(
    shape: tuple[int, ...], dtype: torch.dtype, affine: bool
) -> None:
    norm = NORMS[len(shape)](5, affine=affine, eps=1e-3).to(dtype)
    if affine:
        nn.init.uniform_(norm.weight)
        nn.init.normal_(norm.bias)
    x = (3 * torch.randn(shape) + 1).to(dtype)
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    first, second = recompute(nn.Sequential(norm, nn.ReLU(inplace=True)), x)
    assert torch.equal(first, second)
    assert torch.equal(first, F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.1, 1e-3)))


def test_the_gradient_of_known_statistics_includes_theirs() -> None:
    x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    _, mean, inverse_deviation = torch.native_batch_norm(x.detach(), None, None, None, None, True, 0.1, 1e-3)
    grad = torch.randn(4, 3, 5, dtype=torch.float64)
    ours = torch.autograd.grad(
        _KnownStatistics.apply(x, weight, bias, mean, inverse_deviation, 1e-3), [x, weight, bias], grad
    )
    plain = torch.autograd.grad(F.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-3), [x, weight, bias], grad)
    assert relative_difference(ours, plain) < 1e-14


class ReadsRunningValues(nn.Module):
    """As quantisation-aware training does: the running variance is used before batch norm moves it, and after."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        before = self.norm.running_var.clone()
        return F.relu(self.norm(self.linear(x * before))) * self.norm.running_mean.clone()


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_running_values_that_a_module_reads_are_those_of_the_first_call(strategy: str) -> None:
    chain = reversible([(ReadsRunningValues(), ReadsRunningValues()) for _ in range(3)]).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    found = []
    for name in ("stored", strategy):
        twin = copy.deepcopy(chain)
        twin.strategy = name  # type: ignore[assignment]
        (twin(x).square().sum() + twin(x + 1).square().sum()).backward()
        found.append([p.grad for p in twin.parameters()] + list(twin.buffers()))
    assert relative_difference(found[1], found[0]) < 1e-9


class Odd(nn.Module):
    """One batch norm called twice, one with a cumulative average, one in eval, one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.BatchNorm1d(3)
        self.cumulative = nn.BatchNorm1d(3, momentum=None)
        self.untracked = nn.BatchNorm1d(3, track_running_stats=False)
        self.still = nn.BatchNorm1d(3).requires_grad_(False)
        self.still.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.still(self.untracked(self.cumulative(self.twice(self.twice(x).tanh() * 2))))


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_batch_norms_of_every_kind(strategy: str) -> None:
    chain = reversible([(Odd(), nn.Sequential(nn.Linear(3, 3), Odd())) for _ in range(2)]).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    found = []
    for name in ("stored", strategy):
        twin = copy.deepcopy(chain)
        twin.strategy = name  # type: ignore[assignment]
        for _ in range(2):
            twin(x).square().sum().backward()
        found.append([p.grad for p in twin.parameters() if p.grad is not None])
        buffers = list(twin.buffers())
        assert not any("forward" in module.__dict__ for module in twin.modules())
        if name == "stored":
            expected = buffers
    assert relative_difference(found[1], found[0]) < 1e-9
    for a, b in zip(buffers, expected, strict=True):
        assert torch.equal(a, b) or torch.allclose(a, b, rtol=1e-12), strategy


def test_one_value_a_channel_is_still_an_error() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        reversible([(nn.BatchNorm1d(2), nn.Identity())])(torch.randn(1, 4, requires_grad=True))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        lambda r: r @ r.detach().T @ r,
        lambda r: r + 1,  # its gradient is the one that entered addition, which others hold too
        lambda r: r.view(2, -1).flatten(),
        lambda r: r.sum(),  # an expanded gradient
        lambda r: r + r.t().t() * r,
        lambda r: torch.cat([r, 2 * r]),
    ],
)
def test_relu_never_writes_over_a_gradient_that_somebody_holds(body: object, in_place: bool) -> None:
    alone = try_out_gradients()
    found = []
    for relu in (
        lambda y, in_place: _ThriftyRelu.apply(y, in_place, alone),
        lambda y, in_place: F.relu(y, inplace=in_place),
    ):
        torch.manual_seed(3)
        x = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
        kept: list[Tensor] = []
        y = x * 2
        a, b = relu(y, in_place), relu(x * 3, in_place)
        a.register_hook(kept.append)
        out = body(a) + body(a + b)  # type: ignore[operator]
        out.sum().backward()
        found.append([x.grad, *kept])
    assert relative_difference(found[0], found[1]) < 1e-15


class Squashing(torch.autograd.Function):
    """Keeps an array of NumPy's for backward, and gives its memory away as a tensor: nobody's count shows it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.array = np.tanh(x.numpy())
        return torch.from_numpy(ctx.array)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 - torch.from_numpy(ctx.array) ** 2)


class Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Squashing.apply(x)


def test_memory_of_another_library_is_not_written_over() -> None:
    chain = reversible([(Squash(), Squash()) for _ in range(3)]).double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for strategy in ("reconstructed", "stored"):
        chain.strategy = strategy  # type: ignore[assignment]
        found.append(torch.autograd.grad(chain(x).square().sum(), x))
    assert relative_difference(found[0], found[1]) < 1e-12
    assert not memory_is_ours(torch.from_numpy(np.ones(3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_batch_norm_is_the_one_of_stored(dtype: torch.dtype) -> None:
    x = torch.randn(2, 4, 5, 5)
    body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    with torch.autocast("cpu", dtype=dtype):
        expected = copy.deepcopy(body)(x)
        first, second = recompute(body, x)
    assert first.dtype == expected.dtype
    assert torch.equal(first, expected)
    assert torch.equal(first, second)


def test_relu_differentiates_twice() -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: _ThriftyRelu.apply(x * 1.0, False, None).square(), (x,))


@pytest.mark.skipif(not try_out_gradients(), reason="this PyTorch does not tell who holds a gradient")
def test_holders_are_told_apart() -> None:
    seen: list[bool] = []

    class Ask(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            seen.append(gradient_is_ours(grad, alone))
            return grad

    alone = try_out_gradients()
    x = torch.randn(3, 3, requires_grad=True)
    (Ask.apply(x) @ torch.ones(3, 3)).sum().backward()
    y = torch.randn(3, 3)
    torch.autograd.grad(Ask.apply(x), x, y)  # the caller's own tensor
    a = torch.randn(3, 3)
    ours = memory_is_ours(a)
    view = a.view(-1)
    assert (seen, ours, memory_is_ours(a), memory_is_ours(view)) == ([True, False], True, False, False)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("itself", [True, False])
def test_a_copy_that_is_made_while_a_function_runs_stands_on_its_own(how: Any, strategy: Any, itself: bool) -> None:
    """An average of weights, made by a hook: of the function that the hook is on, or of a plain one before it."""
    half = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6))
    other = nn.Linear(6, 6)
    chain = reversible([(half, other)], strategy=strategy)
    copies: list[Any] = []
    hooked = half[2] if itself else other
    handle = hooked.register_forward_pre_hook(lambda module, args: copies.append(how(half[0])))
    x = torch.randn(96, 12)
    chain(x).sum().backward()
    handle.remove()
    assert len(copies) >= 2
    for norm in copies:
        before = half[0].running_mean.clone()  # type: ignore[union-attr,operator]
        norm(x[:, :6])
        norm.reset_running_stats()
        assert torch.equal(norm(x[:, 6:]), F.batch_norm(x[:, 6:], None, None, norm.weight, norm.bias, True))
        assert torch.equal(before, half[0].running_mean)  # type: ignore[arg-type]
        assert not torch.equal(norm.running_mean, torch.zeros(6))
