"""The certificate is given only for equal bits, and names what differed."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench import build_model, reversible
from revbench.backprop.certificate import checksum


class OnAGrid(nn.Module):
    """Integers in, small integers out: floating-point addition of these is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-2, 3, (4, 4)).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).clamp(-8, 8)


class Drawing(nn.Linear):
    """Draws from a generator that nobody puts back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * random.Random().random()


def certificate(chain: nn.Module, x: Tensor) -> object:
    chain(x).square().sum().backward()
    return chain.certificate


def test_exact_activations_are_certified() -> None:
    chain = reversible([(OnAGrid(), OnAGrid()) for _ in range(10)], certify=True)
    assert chain.certificate is None
    found = certificate(chain, torch.randint(-4, 5, (3, 8)).float().requires_grad_())
    assert (found.compared, found.identical, found.difference) == (19, 19, None)
    assert "bit-identical to the stored ones (19 half steps)" in str(found)


def test_rounding_is_found_and_named() -> None:
    chain = reversible([(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(5)], certify=True)
    found = certificate(chain, torch.randn(64, 8))
    assert found.difference.name == "block 4's G"
    assert 0 < abs(found.difference.net_ulps) < 64 * 4 * 1e4
    assert found.not_deterministic == ()
    assert "rounding" in str(found)


def test_a_function_that_is_not_deterministic_is_found() -> None:
    pairs: list[tuple[nn.Module, nn.Module]] = [(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(5)]
    pairs[2] = (Drawing(4, 4), pairs[2][1])
    # Without the tripwire, which would raise.
    found = certificate(reversible(pairs, certify=True, tripwire=False), torch.randn(64, 8))
    assert found.not_deterministic == ("block 2's F",)
    assert "not deterministic: block 2's F" in str(found)


def test_a_function_that_changed_is_not_explained_by_rounding() -> None:
    scale = torch.ones(4)

    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * scale

    chain = reversible([(nn.Linear(4, 4), Scaled(4, 4)) for _ in range(5)], certify=True, tripwire=False)
    y = chain(torch.randn(64, 8))
    scale[1] = 0.0
    y.square().sum().backward()
    found = chain.certificate
    assert found is not None
    assert found.difference is not None
    assert (found.difference.name, found.difference.value_changed) == ("block 4's G", True)
    assert "its function gave other bits than in forward" in str(found)


def test_one_unit_in_the_last_place_of_one_element() -> None:
    """Planted: what the fourth of five blocks gives moves by one ulp between the passes."""

    class Planted(OnAGrid):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x) + 1000  # the sum's ulp, 2**-14, is the smallest change that it shows
            Planted.calls += 1
            if Planted.calls > 1:
                out = out.clone()
                out[0, 0] += 2.0**-14
            return out

    pairs: list[tuple[nn.Module, nn.Module]] = [(OnAGrid(), OnAGrid()) for _ in range(5)]
    pairs[3] = (Planted(), OnAGrid())
    found = certificate(reversible(pairs, certify=True), torch.randint(-4, 5, (3, 8)).float().requires_grad_())
    assert found.difference.name == "block 3's F"
    assert found.identical == 3  # blocks 4's G and F, block 3's G


def test_dropout_and_batch_norm_are_deterministic() -> None:
    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU())

    found = certificate(reversible([(half(), half()) for _ in range(4)], certify=True), torch.randn(32, 8))
    assert found.not_deterministic == ()


def test_a_network_certifies_all_its_chains() -> None:
    model = build_model("revnet-38", image_size=8)
    model.certify = True
    found = certificate(model, torch.randn(4, 3, 8, 8))
    assert found.compared == 2 * (3 + 2 + 2) - 3  # no gradient needs the first activation of a chain
    model.strategy = "stored"
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    assert model.certificate is found or model.certificate == found  # still of the last certified call


def test_gradients_are_the_same_with_and_without() -> None:
    chain = reversible([(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3)])
    x = torch.randn(5, 8)
    grads = []
    for chain.certify in (False, True):
        grads.append(torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_a_checksum_does_not_depend_on_order_and_sees_every_change(dtype: torch.dtype) -> None:
    x = torch.randn(7, 8, 5).to(dtype)
    assert checksum(x).dtype == torch.int64
    assert checksum(x).dim() == 0
    sums = {int(checksum(y)) for y in (x, x.transpose(0, 2).contiguous().transpose(0, 2), x.flip(0).clone().flip(0))}
    assert len(sums) == 1
    assert not sums & {int(checksum(y)) for y in (x.flip(0), x.transpose(0, 2), x.flatten()[torch.randperm(280)])}
    for i in (0, 17, 279):
        changed = x.clone().flatten()
        changed[i] = -changed[i]
        assert int(checksum(changed)) not in sums


@given(
    moves=st.lists(st.tuples(st.integers(0, 99), st.integers(-3, 3)), min_size=1, max_size=6, unique_by=lambda m: m[0]),
    coarse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_changes_that_cancel_are_seen(moves: list[tuple[int, int]], coarse: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randint(1, 9, (100,)).float() if coarse else torch.randn(100)
    bits = x.view(torch.int32).clone()
    for i, ulps in moves:
        bits[i] += ulps
    if moves and any(ulps for _, ulps in moves):
        y = bits.view(torch.float32)
        before, after = int(checksum(x)), int(checksum(y))
        assert before != after
        net = ((after & 0xFFFFFFFF) - (before & 0xFFFFFFFF) + 2**31) % 2**32 - 2**31
        assert net == sum(ulps for _, ulps in moves)


def test_no_two_small_changes_collide() -> None:
    x = torch.randn(64)
    sums = set()
    for i, j in itertools.combinations(range(64), 2):
        bits = x.view(torch.int32).clone()
        bits[i] += 1
        bits[j] -= 1
        sums.add(int(checksum(bits.view(torch.float32))))
    assert len(sums) == 64 * 63 // 2
