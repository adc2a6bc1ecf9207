"""What a function holds is, for backward, what it was in forward, and afterwards what forward left: whatever it is kept in."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from revbench import reversible
from revbench.choices import STRATEGIES
from revbench.probes.live_tensors import LiveTensors
from tests.backprop.oracle import Linear, Pairs, assert_as_plain, once, three, training, twice

RECOMPUTING = STRATEGIES[1:]


# Parameters and buffers that move inside the function


class Centred(Linear):
    """A frozen parameter that the function moves itself, as running centres and codebooks do."""

    def __init__(self) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.zeros(6), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.center.mul_(0.5).add_(x.mean(0), alpha=0.5)
        return torch.tanh(self.linear(x - self.center))


class CentredBehindTheCounter(Centred):
    def forward(self, x: Tensor) -> Tensor:
        self.center.data.mul_(0.5).add_(x.detach().mean(0), alpha=0.5)
        return torch.tanh(self.linear(x - self.center))


class Initialised(Linear):
    """Sets trainable weights from the first batch (data-dependent initialisation)."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.bias, self.log_scale = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))
        self.register_buffer("done", torch.tensor(False))
        self.how, self.flag = how, False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.flag if self.how == "python" else bool(self.done)):
            with torch.no_grad():
                bias, log_scale = -x.mean(0), -x.std(0).log()
                if self.how == "data":
                    self.bias.data, self.log_scale.data = bias, log_scale
                else:
                    self.bias.copy_(bias)
                    self.log_scale.copy_(log_scale)
            self.done.fill_(True)
            self.flag = True
        return torch.tanh(self.linear((x + self.bias) * self.log_scale.exp()))


class Renormalised(Linear):
    """Puts its weight back on the unit sphere at each call, past the version counter."""

    def forward(self, x: Tensor) -> Tensor:
        self.linear.weight.data /= self.linear.weight.data.norm(dim=1, keepdim=True)
        return torch.tanh(self.linear(x))


class Codebook(nn.Module):
    """A buffer of 8,192 numbers that moves without its version counter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("codes", torch.randn(8192 // 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.codes.data.mul_(0.9).add_(x.detach().mean())
        return torch.tanh(self.linear(x)) * self.codes.mean()


BY_INITIALISATION = [functools.partial(Initialised, how) for how in ("copy", "data", "python")]


@pytest.mark.parametrize("kind", [Centred, CentredBehindTheCounter, Renormalised, Codebook, *BY_INITIALISATION])
@pytest.mark.parametrize("use", [once, training])
def test_parameters_and_buffers_that_move(kind: Callable[[], nn.Module], use: Any) -> None:
    assert_as_plain(three(kind), use)


@pytest.mark.parametrize("kind", [Centred, CentredBehindTheCounter, Codebook])
def test_parameters_and_buffers_that_move_twice_before_backward(kind: Callable[[], nn.Module]) -> None:
    assert_as_plain(three(kind), twice)


def test_backward_moves_no_weight_by_a_bit() -> None:
    for strategy in RECOMPUTING:
        chain = reversible(three(lambda: Initialised("copy"))() + three(Renormalised)(), strategy=strategy)
        y = chain(torch.randn(32, 12))
        before = {name: p.detach().clone() for name, p in chain.named_parameters()}
        y.square().sum().backward()
        for name, p in chain.named_parameters():
            assert torch.equal(p, before[name]), (strategy, name)


class Wide(nn.Module):
    """A batch norm of more numbers than are always copied, in a function of one's own."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 5000), norm(5000), nn.Linear(5000, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.norm(self.a(x))))


class OwnBatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
        )


def and_a_pass_without_gradient(call: Any, chain: Any) -> dict[str, Any]:
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    y = call(x)
    with torch.no_grad():
        call(x * 2 + 1)
    y.square().sum().backward()
    return {"gradient of x": x.grad}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, OwnBatchNorm])
@pytest.mark.parametrize("use", [once, twice, and_a_pass_without_gradient])
def test_wide_batch_norms(norm: Any, use: Any) -> None:
    assert_as_plain(lambda: [(Wide(norm), Wide(norm)) for _ in range(2)], use)


class LateWriter(Codebook):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        LateWriter.calls += 1
        if LateWriter.calls >= 3:
            self.codes.mul_(0.5)
        return torch.tanh(self.linear(x)) * self.codes.mean()


def test_a_large_buffer_that_a_later_call_is_the_first_to_write() -> None:
    LateWriter.calls = 0
    chain = reversible([(LateWriter(), nn.Linear(6, 6))])
    x = torch.randn(5, 12)
    chain(x).sum().backward()
    with pytest.raises(RuntimeError, match=r"buffer 'codes' of block 0's F .* by none before.*run the step again"):
        chain(x).sum().backward()  # the second call is the third: backward of the first was one
    chain.zero_grad()
    chain(x).sum().backward()  # now it is known


def test_a_large_buffer_that_nobody_writes_costs_nothing() -> None:
    class Masked(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones(2048, 2048))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.mask[0, :6]

    chain = reversible([(Masked(), Masked())])
    peaks = []
    for _ in range(2):
        live = LiveTensors()
        live.track(chain)
        steady = live.live_bytes
        with live:
            chain(torch.randn(5, 12)).sum().backward()
        peaks.append(live.peak_bytes - steady)
    assert peaks[0] > 16 << 20  # the first call finds out
    assert peaks[1] < 1 << 20


# State in plain attributes


class Masked(Linear):
    mask: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * self.mask


def two_masks(call: Any, chain: Any) -> dict[str, Any]:
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    first = (torch.rand(5, 1) > 0.5).double()
    total: Any = 0.0
    for mask in (first, 1 - first):
        for module in chain.modules():
            if isinstance(module, Masked):
                module.mask = mask
        total = total + call(x).square().sum()
    total.backward()
    return {"gradient of x": x.grad}


class Leaky(Linear):
    """A membrane potential: an attribute that forward sets anew."""

    v: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.v * 0.5 + self.linear(x)
        self.v = h.detach()
        return torch.sigmoid(h)


class Counting(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.history, self.loads = 0, [], {"all": torch.zeros(())}
        self.numbers, self.draws = np.zeros(3), random.Random(3)
        self.generator = torch.Generator().manual_seed(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(float(x.detach().sum()))
        self.loads["all"] += x.detach().sum()
        self.numbers += 1
        noise = torch.rand(6, generator=self.generator, dtype=x.dtype)
        return torch.tanh(self.linear(x)) * self.numbers[0] * len(self.history) * self.draws.random() * noise


def once_and_its_attributes(call: Any, chain: Any) -> dict[str, Any]:
    found = once(call, chain)
    for i, module in enumerate(chain.modules()):
        if isinstance(module, Leaky):
            found[f"potential {i}"] = module.v
        if isinstance(module, Counting):
            found |= {f"calls {i}": module.calls, f"lengths {i}": len(module.history), f"load {i}": module.loads["all"]}
            found |= {f"numbers {i}": list(module.numbers), f"next {i}": copy.deepcopy(module.draws).random()}
            found[f"generator {i}"] = module.generator.get_state()
    return found


def test_attributes_that_the_caller_sets_anew() -> None:
    assert_as_plain(three(Masked), two_masks)


@pytest.mark.parametrize("kind", [Leaky, Counting])
def test_attributes_that_the_function_sets_anew(kind: Callable[[], nn.Module]) -> None:
    assert_as_plain(three(kind), once_and_its_attributes)


class WeightsInAList(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6) / 6)
        self.weights = kind([self.weight])

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weights[0])


@pytest.mark.parametrize("kind", [list, tuple])
def test_weights_that_a_list_holds_too(kind: type) -> None:
    calls = []

    def hooked(call: Any, chain: Any) -> dict[str, Any]:
        calls.clear()
        for p in chain.parameters():
            p.register_hook(lambda gradient: calls.append(1))
        return once(call, chain) | {"hooks fired": len(calls)}

    assert_as_plain(three(lambda: WeightsInAList(kind)), hooked)


class Memo(nn.Module):
    """A weight from a small network, computed once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.w = nn.Linear(3, 36), None
        self.register_buffer("code", torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.w is None:
            self.w = self.generator(self.code).view(6, 6)
        return torch.tanh(x @ self.w)


def test_a_tensor_memoised_from_weights() -> None:
    assert_as_plain(three(Memo), once)


def test_a_tensor_memoised_in_another_call_is_refused_by_name() -> None:
    memo = Memo()
    memo.w = memo.generator(memo.code).view(6, 6)
    for strategy in RECOMPUTING:
        with pytest.raises(RuntimeError, match=r"the attribute 'w' of its Memo, a tensor of shape \(6, 6\)"):
            reversible([(memo, nn.Linear(6, 6))], strategy=strategy)(torch.randn(5, 12)).sum().backward()


# Ordinary layers that hold more than parameters: lists of weights, recomputed weights, power iterations


class Around(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.body, nn.MultiheadAttention):
            return self.body(x, x, x)[0]
        if isinstance(self.body, nn.RNNBase):
            return self.body(x[None])[0][0]
        return torch.tanh(self.body(x))


ORDINARY: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(6, 6, batch_first=True),
    "GRU": lambda: nn.GRU(6, 6, batch_first=True),
    "attention with dropout": lambda: nn.MultiheadAttention(6, 2, dropout=0.2),
    "weight norm": lambda: weight_norm(nn.Linear(6, 6)),
    "spectral norm": lambda: spectral_norm(nn.Linear(6, 6)),
    "orthogonal": lambda: orthogonal(nn.Linear(6, 6)),
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("use", [once, twice, training])
def test_ordinary_layers(name: str, use: Any) -> None:
    assert_as_plain(three(lambda: Around(ORDINARY[name]())), use)


def shared_by_all() -> Pairs:
    half = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU())
    return [(half, half) for _ in range(3)]


@pytest.mark.parametrize("use", [once, twice, training])
def test_one_function_everywhere(use: Any) -> None:
    assert_as_plain(shared_by_all, use)
