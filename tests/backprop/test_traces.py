"""Recomputation leaves nothing behind: buffers, random numbers, modes and parameters end as under `stored`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import revbench
from revbench import UserError, build_model, reversible
from revbench.backprop import ReversibleBlock, propagate
from revbench.case import Backpropagation
from revbench.choices import STRATEGIES
from tests.backprop.chains import relative_difference


def half(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.4))


def step(model: nn.Module, strategy: str, x: Tensor) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    twin = copy.deepcopy(model)
    twin.strategy = strategy
    torch.manual_seed(7)
    twin(x).square().sum().backward()
    return dict(twin.named_buffers()), torch.get_rng_state(), [p.grad for p in twin.parameters() if p.grad is not None]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_buffers_and_generator_are_bitwise_those_of_stored(strategy: str) -> None:
    chain = reversible([(half(3), half(3)) for _ in range(5)]).double()
    x = torch.randn(4, 6, 5, 5).double()
    buffers, rng, grads = step(chain, "stored", x)
    found, found_rng, found_grads = step(chain, strategy, x)
    for name, buffer in buffers.items():
        assert torch.equal(buffer, found[name]), name
        assert buffer._version == found[name]._version, name
    assert torch.equal(rng, found_rng)
    assert relative_difference(found_grads, grads) < 1e-9  # only if the dropout masks were equal


@pytest.mark.parametrize(("strategy", "nonreversible"), [("reconstructed", "recomputed"), ("recursive", "recomputed")])
def test_a_whole_network(strategy: str, nonreversible: str) -> None:
    model = build_model("revnet-38", image_size=8, strategy="stored")
    x = torch.randn(4, 3, 8, 8)
    twin = copy.deepcopy(model)
    twin.set_strategy(strategy, nonreversible)
    for network in (model, twin):
        network(x).square().sum().backward()
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert model.stem[1].num_batches_tracked == 1


def test_buffers_that_a_module_changes_itself() -> None:
    def spectral() -> nn.Module:
        return nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.Tanh())

    chain = reversible([(spectral(), spectral()) for _ in range(3)]).double()
    x = torch.randn(2, 8).double()
    buffers, _, grads = step(chain, "stored", x)
    for strategy in STRATEGIES[1:]:
        found, _, found_grads = step(chain, strategy, x)
        for name, buffer in buffers.items():
            assert torch.equal(buffer, found[name]), (strategy, name)
        assert relative_difference(found_grads, grads) < 1e-9, strategy


class Averaging(nn.Module):
    """Keeps running values in every way that the field knows: reassigned, changed in place, changed by a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reassigned", torch.zeros(3))
        self.register_buffer("in_place", torch.zeros(3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("variance", torch.ones(3))
        self.norm = nn.InstanceNorm1d(3, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.detach().mean((0, 2))
        self.reassigned = 0.5 * self.reassigned + batch
        self.in_place.mul_(0.5).add_(batch)
        x = torch.nn.functional.batch_norm(x, self.mean, self.variance, training=True)
        return torch.tanh(self.norm(x) + x * (self.reassigned * self.in_place)[:, None])


def test_every_way_to_keep_a_running_value() -> None:
    chain = reversible([(Averaging(), Averaging()) for _ in range(2)]).double()
    x = torch.randn(5, 6, 4).double().requires_grad_()
    reference = None
    for strategy in STRATEGIES:
        twin = copy.deepcopy(chain)
        twin.strategy = strategy
        for _ in range(2):
            (grad,) = torch.autograd.grad(twin(x).square().sum(), x)
        found = [grad, *(b.double() for b in twin.buffers())]
        reference = reference or found
        assert relative_difference(found[:1], reference[:1]) < 1e-9, strategy
        for (name, _), a, b in zip(twin.named_buffers(), found[1:], reference[1:], strict=True):
            if strategy == "reconstructed":  # its inputs are the stored ones to rounding
                assert torch.allclose(a, b, rtol=1e-12), (strategy, name)
            assert torch.equal(a, b), (strategy, name)


class Reading(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:3]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_small_buffer_changed_before_backward_counts_as_it_was(strategy: str) -> None:
    f, x = Reading(3), torch.randn(2, 6, requires_grad=True)
    out = reversible([(f, nn.Identity())], strategy=strategy)(x)  # type: ignore[arg-type]
    f.scale.fill_(3.0)
    out[:, :3].sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(2, 6))


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_large_buffer_that_is_only_read_and_changed_before_backward_raises(strategy: str) -> None:
    f = Reading(5000)
    out = reversible([(f, nn.Linear(3, 3))], strategy=strategy)(torch.randn(2, 6, requires_grad=True))  # type: ignore[arg-type]
    f.scale.fill_(3.0)
    with pytest.raises(RuntimeError, match="buffer 'scale'"):
        out.sum().backward()


def test_what_a_hook_keeps_is_not_written_over() -> None:
    chain = reversible([(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(3)]).double()
    kept: list[Tensor] = []
    chain.blocks[1].f.register_forward_pre_hook(lambda _, args: kept.append(args[0].detach()))
    copies: list[Tensor] = []
    chain.blocks[1].f.register_forward_pre_hook(lambda _, args: copies.append(args[0].detach().clone()))
    chain(torch.randn(2, 6).double()).square().sum().backward()
    assert len(kept) == 2
    for a, b in zip(kept, copies, strict=True):
        assert torch.equal(a, b)


def test_a_hook_on_a_block_itself_is_refused() -> None:
    chain = reversible([(nn.Linear(3, 3), nn.Linear(3, 3))])
    chain.blocks[0].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="block 0 has hooks"):
        chain(torch.randn(2, 6))
    chain.strategy = "checkpointed"
    chain(torch.randn(2, 6)).sum().backward()


def test_a_block_with_a_forward_of_its_own_is_not_reconstructed() -> None:
    class Doubled(ReversibleBlock):
        def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
            y1 = x1 + 2 * self.f(x2)
            return y1, x2 + self.g(y1)

    block = Doubled(nn.Linear(3, 3), nn.Linear(3, 3))
    x = torch.randn(2, 3), torch.randn(2, 3)
    for a, b in zip(propagate([block], x, owner=block, way=Backpropagation("reconstructed")), block(*x), strict=True):
        assert torch.equal(a, b)


def test_eval_between_forward_and_backward_changes_nothing() -> None:
    chain = reversible([(half(3), half(3))]).double()
    x = torch.randn(4, 6, 5, 5).double()
    grads = []
    for strategy in ("stored", "reconstructed"):
        twin = copy.deepcopy(chain)
        twin.strategy = strategy
        torch.manual_seed(3)
        loss = twin(x).square().sum()
        twin.eval()
        loss.backward()
        assert not any(module.training for module in twin.modules())
        grads.append(torch.cat([p.grad.flatten() for p in twin.parameters()]))
    assert (grads[0] - grads[1]).norm() <= 1e-9 * grads[0].norm()


def test_parameters_are_the_same_objects_after_a_recomputation_that_fails() -> None:
    class Moody(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Moody.calls += 1
            if Moody.calls == 3:
                raise ValueError("not again")
            return super().forward(x)

    chain = reversible([(Moody(2, 2), Moody(2, 2))])
    before = list(chain.parameters())
    loss = chain(torch.randn(3, 4)).sum()
    with pytest.raises(ValueError, match="not again"):
        loss.backward()
    assert [id(p) for p in chain.parameters()] == [id(p) for p in before]
    assert not revbench.is_recomputing()


def test_is_recomputing_tells_the_passes_apart() -> None:
    chain = reversible([(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)])
    seen: list[bool] = []
    chain.blocks[0].f.register_forward_hook(lambda *_: seen.append(revbench.is_recomputing()))
    for strategy, expected in (
        ("stored", [False]),
        ("reconstructed", [False, True]),
        ("recursive", [False, True, True]),
    ):
        seen.clear()
        chain.strategy = strategy  # type: ignore[assignment]
        chain(torch.randn(3, 4, requires_grad=True)).sum().backward()
        assert seen == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_autocast_with_backward_outside(strategy: str) -> None:
    chain = reversible([(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(4)], strategy=strategy)
    x = torch.randn(16, 16, requires_grad=True)
    seen: list[torch.dtype] = []
    chain.blocks[0].f.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = chain(x.bfloat16() * 1)
    assert out.dtype == torch.float32  # the stream stays float32
    out.square().sum().backward()
    assert set(seen) == {torch.bfloat16}
    stored = copy.deepcopy(chain)
    stored.strategy = "stored"
    stored.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = stored(x.bfloat16() * 1).square().sum()
    loss.backward()
    for a, b in zip(chain.parameters(), stored.parameters(), strict=True):
        assert (a.grad - b.grad).norm() < 0.02 * b.grad.norm()


class Shrinking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


class Inplace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class Widening(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Dividing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


def test_values_that_are_not_finite_are_named() -> None:
    x = torch.randn(2, 6)
    chain = reversible([(nn.Linear(3, 3), nn.Linear(3, 3)), (Dividing(), nn.Linear(3, 3))])
    with pytest.raises(FloatingPointError, match="block 1's F returned values that are NaN or infinite"):
        chain(x)
    x[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="block 0's F is added to values that are NaN"):
        chain(x)
    with pytest.raises(FloatingPointError, match="block 0's F is given values that are NaN"):
        chain(x.flip(1))
    chain.strategy = "stored"
    chain(x).sum().backward()
    large = torch.full((1, 6), 3e38)  # finite, though its sum is not
    assert reversible([(nn.Identity(), nn.Identity())])(large / 4).isfinite().all()
    assert reversible([(nn.ReLU(), nn.ReLU())])(-large).isfinite().all()


def test_bad_blocks_and_inputs_are_named() -> None:
    x = torch.randn(2, 6)
    with pytest.raises(ValueError, match="block 1's G"):
        reversible([(nn.Identity(), nn.Identity()), (nn.Identity(), Shrinking())])(x)
    with pytest.raises(
        ValueError, match=r"block 0's F returned torch.float64, which would turn the torch.float32 stream"
    ):
        reversible([(Widening(), nn.Identity())])(x)
    with pytest.raises(UserError, match="kept_half_blocks=-1"):
        reversible([], kept_half_blocks=-1)
    with pytest.raises(RuntimeError, match="block 0's F changes its input in place"):
        reversible([(Inplace(), nn.Identity())])(x)
    with pytest.raises(ValueError, match="odd"):
        reversible([(nn.Identity(), nn.Identity())])(torch.randn(2, 5))
    with pytest.raises(ValueError, match="halves differ"):
        reversible([(nn.Identity(), nn.Identity())])((torch.randn(2, 3), torch.randn(2, 4)))
    with pytest.raises(UserError, match="block 0"):
        reversible([(torch.relu, torch.relu)])  # type: ignore[list-item]
    with pytest.raises(UserError, match="unknown strategy"):
        reversible([]).strategy = "recorded"  # type: ignore[assignment]
