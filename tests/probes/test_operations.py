"""Operations counted, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from revbench.case import Case
from revbench.observing.operator_calls import EachOperator
from revbench.prediction import predict
from revbench.probes.flops import measure_flops
from revbench.probes.operations import Operations
from revbench.workload import build_workload


def count(call: Callable[[], Tensor]) -> tuple[int, int]:
    """Operations of a call, and of its backward pass."""
    operations = Operations()
    with EachOperator(operations.note):
        loss = call().sum()
        forward = operations.flops
        loss.backward()
    assert operations.uncounted_words() is None
    return forward, operations.flops - forward


def test_linear() -> None:
    layer, x = nn.Linear(30, 50), torch.randn(7, 30, requires_grad=True)
    assert count(lambda: layer(x)) == (2 * 7 * 30 * 50, 2 * 2 * 7 * 30 * 50)


def test_vectors() -> None:
    layer, x = nn.Linear(30, 50, bias=False), torch.randn(30)
    forward, _ = count(lambda: layer(x))
    assert forward == 2 * 30 * 50
    a, b = torch.randn(40, requires_grad=True), torch.randn(40)
    assert count(lambda: torch.dot(a, b)) == (2 * 40, 0)  # its gradient is a product with one number


@given(
    data=st.data(), groups=st.sampled_from([1, 2, 6]), transposed=st.booleans(), stride=st.integers(1, 2),
    kernel=st.integers(1, 3), dims=st.integers(1, 3), needs_x=st.booleans(), fake=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_convolutions(
    data: Any, groups: int, transposed: bool, stride: int, kernel: int, dims: int, needs_x: bool, fake: bool
) -> None:
    """Each product of a weight with a number of the input; in backward as many for each gradient that is asked for."""
    kinds = (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        if transposed
        else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    )
    with FakeTensorMode() if fake else torch.enable_grad():
        layer = kinds[dims - 1](6, 12, kernel, stride=stride, groups=groups, padding=kernel // 2)
        size = data.draw(st.integers(3, 6))
        x = torch.randn(2, 6, *(size,) * dims, requires_grad=needs_x)
        y = layer(x)
        pixels = size**dims if transposed else y[0, 0].numel()
        forward = 2 * 2 * pixels * kernel**dims * 6 * 12 // groups
        assert count(lambda: layer(x)) == (forward, forward * (1 + needs_x))


def test_attention() -> None:
    """Scores and their product with the values; in backward these two twice, and the scores once more."""
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    product = 2 * 2 * 3 * 5 * 7 * 8
    assert count(lambda: F.scaled_dot_product_attention(q, k, v)) == (2 * product, 5 * product)
    dropped = count(lambda: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1))  # not fused: scores are kept
    assert dropped == (2 * product, 4 * product)


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers(kind: Any, gates: int, layers: int, bidirectional: bool) -> None:
    layer = kind(10, 20, num_layers=layers, bidirectional=bidirectional)
    x = torch.randn(5, 3, 10, requires_grad=True)
    ways = 1 + bidirectional
    step = sum(gates * 20 * ((10 if i == 0 else 20 * ways) + 20) for i in range(layers)) * ways
    forward, backward = count(lambda: layer(x)[0])
    assert forward == 2 * 5 * 3 * step
    # The state that comes first is given: PyTorch's own steps spare its gradient, the fused layer does not.
    spared = 0 if kind is nn.LSTM else 2 * 3 * gates * 20 * 20 * layers * ways
    assert backward == 2 * forward - spared


def test_embedding() -> None:
    layer, numbers = nn.Embedding(50, 8), torch.randint(50, (3, 4))
    assert count(lambda: layer(numbers)) == (0, 0)


@torch.library.custom_op("revbench_tests::product", mutates_args=())
def product(x: Tensor) -> Tensor:
    """A kernel of somebody's own."""
    return x @ x


@product.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_operators_without_a_formula_are_named() -> None:
    operations = Operations()
    with EachOperator(operations.note):
        x = torch.randn(4, 4)
        product(x)
        product(x)
        torch.fft.fft(x)
        nn.Bilinear(4, 4, 2)(x, x)
        torch.sparse.mm(x.to_sparse(), x)
        F.normalize(x).norm(2, 1).sum()  # reductions are not counted, and nobody misses them
    words = str(operations.uncounted_words())
    assert words.startswith("revbench_tests::product (2 calls), aten::")
    assert words.endswith("and 1 more")
    assert set(operations.uncounted) == {
        "revbench_tests::product",
        "aten::_fft_r2c",
        "aten::_trilinear",
        "aten::_sparse_addmm",
    }


class Doubled(torch.autograd.Function):
    """A backward pass of one's own, as reversible networks have."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (again,) = torch.autograd.grad(leaf @ weight, leaf, grad)
        return again, x.t() @ grad


class OwnBackward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 12, bias=False)
        self.weight = nn.Parameter(torch.randn(12, 10))

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(self.first(x.flatten(1)), self.weight)


class OwnKernel(OwnBackward):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + product(x.flatten(1)[:, :4].detach()).sum()


def test_a_network_with_a_backward_of_its_own() -> None:
    case = Case(model=f"{__name__}:OwnBackward", batch_size=4, image_size=2)
    found = measure_flops(build_workload(case), progress=lambda _: None).metrics
    forward = 2 * 4 * 12 * (12 + 10)
    assert found == {
        "step_flops": found["step_flops"], "forward_flops": forward, "backward_flops": 2 * 4 * 12 * (12 + 10 + 10 + 10)
    }  # fmt: skip
    assert predict(case).step_flops == found["step_flops"] == forward + 2 * 4 * 12 * 42
    assert predict(case).uncounted_operators is None


def test_a_count_that_is_not_complete_says_so() -> None:
    case = Case(model=f"{__name__}:OwnKernel", batch_size=4, image_size=2)
    found = measure_flops(build_workload(case), progress=lambda _: None).metrics
    assert found["uncounted_operators"] == predict(case).uncounted_operators == "revbench_tests::product (1 call)"


def test_ungrouped_networks_are_counted_as_by_pytorch() -> None:
    case = Case(model="revnet-38", batch_size=2, strategy="reconstructed")
    workload = build_workload(case)
    with FlopCounterMode(display=False) as counter:
        workload.forward(*workload.batch()).backward()
    assert measure_flops(workload, progress=lambda _: None).metrics["step_flops"] == counter.get_total_flops()
