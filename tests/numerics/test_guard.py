"""The guard for users' own networks: faults that are planted in strange networks and in our engine are each caught."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.errors import UserError
from revbench.numerics.drift_record import DriftRecord
from tests.numerics.foreign import FAULTS, AffineCoupling, ForeignNetwork, batch, set_strategy

BOUNDS: dict[str, Any] = {"angle_degrees": 0.05, "smooth_amplification": 20.0, "activation_error": 1e-4}


def measured(fault: str, **settings: Any) -> DriftRecord:
    return revbench.drift(lambda: ForeignNetwork(fault), batch, set_strategy=set_strategy, **settings)


def test_a_sound_network_of_strangers() -> None:
    record = measured("none")
    record.assert_within(**BOUNDS)
    metrics = record.metrics()
    assert metrics["verdict"] == "safe"
    assert metrics["trace"] is None
    assert metrics["flips_reason" if metrics["flips"] is None else "units"]
    errors = dict(record.parts().blocks("activation_error"))
    going_back = [errors[f"blocks.{i}"] for i in range(5)]
    assert going_back == sorted(going_back, reverse=True)  # it grows from block to block
    assert 0 < going_back[-1] < going_back[0] < 1e-5


CAUGHT = {
    "wrong sign in the inverse": "activation_error is .* most in blocks",
    "batch norm updated twice": r"a step leaves blocks.0.net.norm.running_mean, .* others otherwise than stored does",
    "random numbers not restored": "a step leaves random generator otherwise than stored does; .*smooth_amplification is",
    "a float16 cast inside G": "it computes in float16 inside blocks.2.net, coarser than float32",
    "off by one block": "smooth_amplification is .*",
    "nearly singular": "activation_error is .* most in blocks.[012]",
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "none"])
def test_a_planted_fault_is_caught(fault: str) -> None:
    with pytest.raises(AssertionError, match=CAUGHT[fault]) as caught:
        measured(fault).assert_within(**BOUNDS)
    assert "float32, 3 draws" in str(caught.value)


def test_blocks_that_can_not_be_inverted_are_named() -> None:
    class Other(AffineCoupling):
        def inverse(self, y1: Tensor, y2: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().inverse(y1, y2)

    class Mixed(ForeignNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.blocks[2] = Other(8)
            self.unused = AffineCoupling(8)

    def reconstructs_all_but_one(model: nn.Module, strategy: str) -> None:
        for block in model.blocks:  # type: ignore[union-attr]
            if isinstance(block, Other):
                block.inverse = functools.partial(AffineCoupling.inverse, block)  # type: ignore[method-assign]
        set_strategy(model, strategy)
        if strategy == "stored":
            del model.blocks[2].inverse  # type: ignore[index,union-attr]

    metrics = revbench.drift(Mixed, batch, set_strategy=reconstructs_all_but_one).metrics()
    said = str(metrics["blocks_left_out"])
    assert said.startswith("blocks.2: its inverse can't be called with what it returned: ")
    assert "unused: it was not called" in said
    assert 0 < float(str(metrics["activation_error"])) < 1e-4


class Alone(ForeignNetwork):
    """It knows only its own way to back-propagate."""

    def __init__(self, fault: str = "none") -> None:
        super().__init__(fault)
        self.reconstructs = True


def test_a_network_without_a_stored_twin() -> None:
    record = revbench.drift(Alone, batch, strategy=None)
    assert record.verdict().words.startswith(
        "safe: no training would see it. It back-propagates by Reconstructing, without a stored twin; "
    )
    assert max(record.samples()["derivative_error"]) < 1e-6
    record.assert_within(angle_degrees=0.05)


@pytest.mark.parametrize("fault", ["wrong sign in the inverse", "random numbers not restored", "off by one block"])
def test_without_a_twin_faults_show_in_the_derivative_of_the_loss(fault: str) -> None:
    record = revbench.drift(lambda: Alone(fault), batch, strategy=None)
    said = r"the backward pass of Reconstructing gives a gradient that is \d+% off the derivative of its own loss"
    assert re.match(f"unsafe: {said}", record.verdict().words)
    with pytest.raises(AssertionError, match=said):
        record.assert_within()


def test_strategies_that_are_two_functions_are_refused() -> None:
    def another(model: nn.Module, strategy: str) -> None:
        set_strategy(model, strategy)
        model.head.weight.data.mul_(1.0 if strategy == "stored" else 1.001)  # type: ignore[union-attr,operator]

    with pytest.raises(UserError, match="set_strategy makes another function of the network"):
        revbench.drift(ForeignNetwork, batch, set_strategy=another)


def test_a_strategy_that_changes_nothing_is_refused() -> None:
    def misspelt(model: nn.Module, strategy: str) -> None:
        model.reconstruct = strategy == "reconstructed"  # type: ignore[assignment]

    with pytest.raises(UserError, match=r"set_strategy\(model, strategy\) changes nothing"):
        revbench.drift(ForeignNetwork, batch, set_strategy=misspelt)


def test_a_cast_that_is_no_coarser_only_blunts_the_reference() -> None:
    class InFloat32(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x.float()).to(x.dtype)

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), revbench.reversible([(InFloat32(), nn.Linear(4, 4))]), nn.Linear(8, 4))

    record = revbench.drift(network, batch)
    record.assert_within(smooth_amplification=20.0)
    assert record.metrics()["casts"] == "float32 inside 1.blocks.0.f"
    assert record.metrics()["coarse_casts"] is None
    with pytest.raises(AssertionError, match=r"it computes in float32 inside 1.blocks.0.f, coarser than float64"):
        revbench.drift(network, batch, dtype="float64").assert_within()


def test_dropout_and_flips_in_a_network_of_strangers() -> None:
    """Going back with the inverses switches dropout off, in a copy: the smooth part of stored must not notice."""

    class Dropping(ForeignNetwork):
        def __init__(self) -> None:
            super().__init__("none")
            for block in self.blocks:
                block.net.dropout.p = 0.3

    def many() -> tuple[Tensor, Tensor]:
        return torch.randn(512, 6), torch.randint(4, (512,))

    samples = revbench.drift(Dropping, many, set_strategy=set_strategy, dtype="bfloat16").samples()
    assert max(samples["stored_flips"]) > 0
    assert max(samples["smooth_stored_relative_error"]) < 0.02


class Direct(nn.Module):
    """A reversible block whose backward calls a method, and a ReLU of it outside of any module's call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def run(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        return x2 + self.run(x1), x1


class DirectStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Direct, x1: Tensor, x2: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        y1, y2 = block(x1, x2)
        ctx.block = block
        ctx.save_for_backward(y1, y2)
        return y1, y2

    @staticmethod
    def backward(ctx: Any, g1: Tensor, g2: Tensor) -> tuple[Tensor | None, ...]:
        _, y2 = ctx.saved_tensors
        leaf = y2.detach().requires_grad_()
        with torch.enable_grad():
            value = ctx.block.run(leaf)
        g, *rest = torch.autograd.grad(value, [leaf, *ctx.block.parameters()], g1)
        return None, g2 + g, g1, *rest


class DirectNetwork(ForeignNetwork):
    def __init__(self) -> None:
        super().__init__("none")
        self.blocks = nn.ModuleList([Direct()])

    def forward(self, x: Tensor) -> Tensor:
        halves = self.stem(x).chunk(2, 1)
        block = self.blocks[0]
        halves = DirectStep.apply(block, *halves, *block.parameters()) if self.reconstructs else block(*halves)
        return self.head(torch.cat(tuple(halves), 1))


def test_what_backward_runs_outside_of_modules_is_not_taken_for_smooth() -> None:
    def many() -> tuple[Tensor, Tensor]:
        return torch.randn(2048, 6), torch.randint(4, (2048,))

    record = revbench.drift(DirectNetwork, many, set_strategy=set_strategy, dtype="bfloat16")
    metrics = record.metrics()
    assert metrics["flips"] is None
    assert "which ReLU is which can't be told" in str(metrics["flips_reason"])
    with pytest.raises(AssertionError, match="smooth_amplification could not be measured"):
        record.assert_within(smooth_amplification=20.0)


def test_a_reference_with_other_random_numbers_is_none() -> None:
    class OwnDropout(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (torch.rand_like(x) > 0.3)

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), revbench.reversible([(OwnDropout(), nn.Linear(8, 8))]), nn.Linear(16, 4))

    record = revbench.drift(network, batch)
    assert record.verdict().words.startswith("unsafe: stored itself is off its float64 reference")
    with pytest.raises(AssertionError, match="stored itself is off its float64 reference"):
        record.assert_within(smooth_amplification=20.0)


def test_every_draw_must_have_what_is_demanded() -> None:
    record = revbench.drift(chain, batch)
    whole = dataclasses.replace(record.draws[1].whole, smooth_relative_error=None, relative_error=1.0)
    broken = dataclasses.replace(record.draws[1], whole=whole, smooth_reason="it could not be followed")
    record = dataclasses.replace(record, draws=[record.draws[0], broken, record.draws[2]])
    with pytest.raises(AssertionError, match="smooth_amplification could not be measured: it could not be followed"):
        record.assert_within(smooth_amplification=20.0)


def chain() -> nn.Module:
    def half() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Dropout(0.2))

    # Without its tripwire, which would raise sooner: what the guard sees is to be shown.
    reversible = revbench.reversible([(half(), half()) for _ in range(4)], tripwire=False)
    return nn.Sequential(nn.Linear(6, 16), reversible, nn.Linear(16, 4))


def test_our_own_engine_is_sound() -> None:
    revbench.drift(chain, batch).assert_within(**BOUNDS)


def test_a_wrong_sign_in_our_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from revbench.backprop.rules import Linear

    monkeypatch.setattr(Linear, "inverse", lambda self, out, a, value, into=None: out + value)
    with pytest.raises(AssertionError, match=r"activation_error is .* most in 1.blocks.0"):
        revbench.drift(chain, batch).assert_within(activation_error=1e-4)


def test_random_numbers_that_our_engine_does_not_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revbench.backprop.random_states.Draws.again", lambda self, name: contextlib.nullcontext())
    with pytest.raises(AssertionError, match="smooth_amplification is"):
        revbench.drift(chain, batch).assert_within(smooth_amplification=20.0)


def test_buffers_that_our_engine_changes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from revbench.backprop.recording import Recording
    from revbench.backprop.replay import Savings

    for name in ("begin_noting", "begin_replaying"):
        monkeypatch.setattr(Savings, name, lambda self, *alone: None)
    monkeypatch.setattr(Recording, "make_ready", _without_copies)
    with pytest.raises(AssertionError, match=r"a step leaves 1.blocks.*running_mean.* otherwise than stored does"):
        revbench.drift(chain, batch).assert_within()


def _without_copies(self: Any) -> Any:
    from revbench.backprop.recording import Ready

    return Ready(None, {id(p): p for p in self.parameters})


def test_functions_in_the_wrong_order_in_our_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from revbench.backprop.tape import Tape

    plain = Tape.undo

    def undo(self: Any, rule: Any, value: Tensor, *, spare: bool) -> None:
        plain(self, rule, value.roll(1, 0), spare=False)  # as if another block's function had been run

    monkeypatch.setattr(Tape, "undo", undo)
    with pytest.raises(AssertionError, match="smooth_amplification is"):
        revbench.drift(chain, batch).assert_within(smooth_amplification=20.0)


class TestBadInput:
    def test_no_reversible_block(self) -> None:
        with pytest.raises(UserError, match=r"Linear has no reversible block that revbench knows.*give set_strategy"):
            revbench.drift(lambda: nn.Linear(6, 4), batch)

    def test_not_finite(self) -> None:
        def broken() -> nn.Module:
            model = chain()
            with torch.no_grad():
                model[2].weight.fill_(torch.nan)  # type: ignore[index,union-attr,operator]
            return model

        with pytest.raises(FloatingPointError, match="the first output that is not finite is that of 2"):
            revbench.drift(broken, batch)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"draws": 0}, "draws=0 must be at least 1"),
            ({"dtype": "float8"}, "unknown dtype 'float8'"),
            ({"autocast": "fp16"}, "unknown autocast 'fp16'"),
            ({"device": "tpu"}, "unknown device 'tpu'"),
            ({"strategy": "reconstruct"}, "unknown strategy 'reconstruct'"),
        ],
    )
    def test_settings(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError, match=said):
            revbench.drift(chain, batch, **settings)

    def test_what_is_no_network_or_batch(self) -> None:
        with pytest.raises(UserError, match=r"returned int, not a torch.nn.Module"):
            revbench.drift(lambda: 3, batch)  # type: ignore[arg-type,return-value]
        with pytest.raises(UserError, match="must be a pair"):
            revbench.drift(chain, lambda: 3)  # type: ignore[arg-type,return-value]
        with pytest.raises(UserError, match="give a loss"):
            revbench.drift(chain, (torch.randn(3, 6), "cat"))

    def test_a_bound_for_what_was_not_measured(self) -> None:
        record = revbench.drift(chain, batch, strategy="checkpointed", draws=1)
        with pytest.raises(AssertionError, match="could not be measured: checkpointed reconstructs no activation"):
            record.assert_within(activation_error=1e-3)


def test_the_random_generator_and_the_draws() -> None:
    state = torch.get_rng_state()
    one, again = (revbench.drift(chain, batch, draws=2, seed=4) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert one.samples() == again.samples()
    assert len(set(one.samples()["relative_error"])) == 2
    assert (
        one.samples()["relative_error"][1:] == revbench.drift(chain, batch, draws=1, seed=5).samples()["relative_error"]
    )
