"""What the strategies keep, in bytes of live tensors and in operations."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from revbench.backprop.ownership import try_out_gradients
from revbench.backprop.replay import SAVES
from revbench.probes.live_tensors import LiveTensors
from tests.backprop.chains import PeersNet, basic_chain

MIB = 2**20
ZEROS = 4 / 32  # one bit a number of a half of 4 MiB


def peak_above_steady(
    blocks: int, strategy: str, *, bottleneck: bool = False, batch_size: int = 32, kept_half_blocks: int = 0
) -> int:
    """Of forward and backward: 32x32 pixels, 64 channels (bottleneck 128), gradients allocated beforehand."""
    model = PeersNet(blocks, 128 if bottleneck else 64, bottleneck=bottleneck)
    model.chain.strategy = strategy  # type: ignore[assignment]
    model.chain.kept_half_blocks = kept_half_blocks
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    x = torch.randn(batch_size, 3, 32, 32)
    live = LiveTensors()
    live.track(model, x)
    steady = live.live_bytes
    with live:
        model(x).sum().backward()
    return live.peak_bytes - steady


def test_reconstruction_takes_the_same_memory_at_every_depth() -> None:
    peaks = {blocks: peak_above_steady(blocks, "reconstructed") for blocks in (9, 18, 36)}
    assert max(peaks.values()) <= 1.01 * min(peaks.values()), peaks
    stored = peak_above_steady(9, "stored")
    assert stored / MIB == pytest.approx(308, abs=0.5)
    # 8H, H = 4 MiB: 2H stream, 2H gradients, 3H graph of a half step, 1H that a backward function makes.
    # One H more where PyTorch does not tell who holds a gradient or saves tensors, so that ReLU's is not written over.
    assert peaks[9] <= (32.1 + ZEROS if SAVES and try_out_gradients() else 36.1 + ZEROS) * MIB


def test_bottleneck_chain() -> None:
    # 7H, H = 8 MiB: the graph of a bottleneck is smaller.
    limit = 56.1 + 2 * ZEROS if SAVES and try_out_gradients() else 64.1 + 2 * ZEROS
    assert peak_above_steady(9, "reconstructed", bottleneck=True) <= limit * MIB


def test_kept_half_blocks_cost_their_activations() -> None:
    kept = [peak_above_steady(9, "reconstructed", kept_half_blocks=k) / MIB for k in (0, 1, 2)]
    assert kept[1] <= 44.1  # of these, 12 MiB are the graph of the half block
    assert kept[2] - kept[1] == pytest.approx(16, abs=0.2)  # 4H: stored takes as much for every further one


@pytest.mark.parametrize(("kept", "ratio"), [(0, 1.332), (1, 1.314), (18, 1.0)])
def test_reconstruction_costs_a_third_more_operations(kept: int, ratio: float) -> None:
    counts = {}
    for strategy in ("stored", "reconstructed"):
        model = PeersNet(9)
        model.chain.strategy = strategy  # type: ignore[assignment]
        model.chain.kept_half_blocks = kept
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(2, 3, 8, 8)).sum().backward()
        counts[strategy] = counter.get_total_flops()
    assert counts["reconstructed"] / counts["stored"] == pytest.approx(ratio, abs=0.0005)


def test_growth_of_the_other_strategies() -> None:
    """Table 1 of the paper: O(L) stored, O(sqrt L) checkpointed, O(log L) recursive; on small chains, by increments."""
    peaks: dict[str, list[int]] = {}
    for strategy in ("stored", "checkpointed", "recursive"):
        for blocks in (4, 16, 64):
            chain = basic_chain(blocks, 8, strategy=strategy).requires_grad_(False)  # activations alone
            x = torch.randn(4, 8, 16, 16, requires_grad=True)  # large beside the statistics that are noted
            live = LiveTensors()
            live.track(chain, x)
            steady = live.live_bytes
            with live:
                chain(x).sum().backward()
            peaks.setdefault(strategy, []).append(live.peak_bytes - steady)
    stored, checkpointed, recursive = peaks["stored"], peaks["checkpointed"], peaks["recursive"]
    assert 3.5 < (stored[2] - stored[1]) / (stored[1] - stored[0]) < 4.5
    assert 1.5 < (checkpointed[2] - checkpointed[1]) / (checkpointed[1] - checkpointed[0]) < 2.5
    assert 0.6 < (recursive[2] - recursive[1]) / (recursive[1] - recursive[0]) < 1.4


@pytest.mark.parametrize("strategy", ["reconstructed", "checkpointed", "recursive"])
def test_nothing_outlives_the_graph(strategy: str) -> None:
    gc.disable()
    try:
        chain = basic_chain(3, 8, strategy=strategy)
        x = torch.randn(2, 8, 4, 4)
        out = chain(x)
        storage = weakref.ref(out.untyped_storage())
        del out  # never back-propagated
        assert storage() is None
        out = chain(x)
        storage = weakref.ref(out.untyped_storage())
        out.sum().backward()
        del out
        assert storage() is None
        out = chain(x)
        storage = weakref.ref(out.untyped_storage())
        torch.autograd.grad(out.sum(), list(chain.blocks[-1].g.parameters()))  # stops half way
        del out
        assert storage() is None
        out = chain(x)
        storage = weakref.ref(out.untyped_storage())
        with pytest.raises(RuntimeError, match="second derivatives"):
            torch.autograd.grad(out.sum(), list(chain.parameters()), create_graph=True)
        del out
        gc.collect()  # the traceback that pytest keeps
        assert storage() is None
    finally:
        gc.enable()
