"""Language models and vision transformers: their mathematics written once more, their sizes, what they see, what they take."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench import UserError, build_model
from revbench.backprop import ReversibleBlock
from revbench.case import Case
from revbench.models import architecture
from revbench.models.networks import batches_of, token_cross_entropy, uniform_tokens
from revbench.models.transformers import turned
from revbench.paper.transformers import TRANSFORMERS, LanguageArchitecture, VisionArchitecture
from revbench.probes.flops import measure_flops
from revbench.probes.memory import measure_memory
from revbench.workload import build_workload

SMALL = {"blocks": 3, "width": 16, "heads": 2}
CHOICES = [
    (strategy, nonreversible)
    for strategy in ("stored", "checkpointed", "recursive", "reconstructed")
    for nonreversible in ("kept", "recomputed")
    if (strategy, nonreversible) != ("stored", "recomputed")
]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_parameters_are_those_of_the_closed_form(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
    assert sum(p.numel() for p in model.parameters()) == TRANSFORMERS[name].parameters


def test_gpt_2_small_has_its_parameters() -> None:
    """124,439,808, as its authors' weights have (Radford et al. 2019; 124 M)."""
    assert TRANSFORMERS["gpt-124m"].parameters == TRANSFORMERS["revgpt-124m"].parameters == 124_439_808


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_pairs(name: str) -> None:
    a, pair = TRANSFORMERS[name], TRANSFORMERS[TRANSFORMERS[name].pair]
    assert pair.pair == name
    assert a.reversible != pair.reversible
    assert a.parameters == pair.parameters
    assert a.block_flops == pair.block_flops


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def attention(x: Tensor, f: nn.Module, *, causal: bool, rotary: bool) -> Tensor:
    """A loop over items and heads (Vaswani et al. 2017, equation 1), with complex numbers for the turns of positions."""
    h = layer_norm(x, f.norm) @ f.qkv.weight.T + f.qkv.bias  # type: ignore[arg-type, union-attr, operator]
    count, length, _ = h.shape
    heads = int(f.heads)  # type: ignore[arg-type]
    width = x.shape[-1] // heads
    out = []
    for item in range(count):
        of_heads = []
        for head in range(heads):
            q, k, v = (
                h[item, :, part * x.shape[-1] + head * width : part * x.shape[-1] + (head + 1) * width]
                for part in range(3)
            )
            if rotary:
                turn = torch.polar(
                    torch.ones(length, width // 2, dtype=torch.float64),
                    torch.arange(length, dtype=torch.float64)[:, None]
                    * 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2)),
                )
                q, k = (
                    torch.cat(((z := torch.complex(a[:, : width // 2], a[:, width // 2 :]) * turn).real, z.imag), 1)
                    for a in (q, k)
                )
            scores = q @ k.T / math.sqrt(width)
            if causal:
                scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
            of_heads.append(scores.softmax(-1) @ v)
        out.append(torch.cat(of_heads, -1))
    return torch.stack(out) @ f.out.weight.T + f.out.bias  # type: ignore[union-attr, operator]


def mlp(x: Tensor, g: nn.Module) -> Tensor:
    norm, first, _, second = g  # type: ignore[misc]
    h = layer_norm(x, norm) @ first.weight.T + first.bias
    return h * (1 + torch.erf(h / math.sqrt(2))) / 2 @ second.weight.T + second.bias


def written_out(model: nn.Module, inputs: Tensor) -> Tensor:
    """The network of any of the four families, without anything of it but its weights."""
    a = model.architecture
    assert isinstance(a, (LanguageArchitecture, VisionArchitecture))
    causal = isinstance(a, LanguageArchitecture)
    rotary = isinstance(a, LanguageArchitecture) and a.positions == "rotary"
    if isinstance(a, LanguageArchitecture):
        x = model.stem.tokens.weight[inputs]  # type: ignore[union-attr, index]
        x = x if rotary else x + model.stem.positions[: inputs.shape[1]]  # type: ignore[union-attr, index]
    else:
        patches = inputs.unfold(2, a.patch, a.patch).unfold(3, a.patch, a.patch).permute(0, 2, 3, 1, 4, 5).flatten(3)
        weight = model.stem.patches.weight.flatten(1)  # type: ignore[union-attr, operator]
        x = patches.flatten(1, 2) @ weight.T + model.stem.patches.bias + model.stem.positions  # type: ignore[union-attr]
    x1 = x2 = x
    for block in model.trunk:  # type: ignore[union-attr]
        if a.reversible:
            x1 = x1 + attention(x2, block.f, causal=causal, rotary=rotary)
            x2 = x2 + mlp(x1, block.g)
        else:
            x1 = x1 + attention(x1, block.f, causal=causal, rotary=rotary)
            x1 = x2 = x1 + mlp(x1, block.g)
    x = (x1 + x2) / 2
    x = layer_norm(x, model.head.norm)  # type: ignore[union-attr, arg-type]
    if isinstance(a, LanguageArchitecture):
        return x @ model.stem.tokens.weight.T  # type: ignore[union-attr, operator]
    return x.mean(1) @ model.head.linear.weight.T + model.head.linear.bias  # type: ignore[union-attr, operator]


NETWORKS = [
    ("revgpt-1m", {"vocabulary": 11, "sequence_length": 7, "positions": "rotary"}),
    ("revgpt-1m", {"vocabulary": 11, "sequence_length": 7, "positions": "learned"}),
    ("gpt-1m", {"vocabulary": 11, "sequence_length": 7, "positions": "rotary"}),
    ("revvit-1m", {"patch": 4, "image_size": 8, "num_classes": 5}),
    ("vit-1m", {"patch": 4, "image_size": 8, "num_classes": 5}),
]


@pytest.mark.parametrize(("name", "overrides"), NETWORKS)
def test_outputs_and_gradients_are_those_of_the_formulas(name: str, overrides: dict[str, object]) -> None:
    """To 1e-9 in float64, under every strategy; the tied weights get the gradients of both their places."""
    torch.manual_seed(1)
    model = build_model(name, strategy="stored", **SMALL, **overrides).double()
    with torch.no_grad():
        for p in model.parameters():  # at first many are 0, and a stream hardly moves
            p.add_(torch.randn_like(p) * 0.2)
    make_batch, loss = batches_of(model.architecture)
    inputs, targets = make_batch(2, torch.Generator().manual_seed(2))
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    parameters = list(model.parameters())
    expected = written_out(model, inputs)
    reference = torch.autograd.grad(loss(expected, targets), parameters)
    for strategy, nonreversible in CHOICES:
        if strategy not in model.strategies:
            continue
        model.set_strategy(strategy, nonreversible)  # type: ignore[arg-type]
        found = model(inputs)
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
        for ours, theirs in zip(torch.autograd.grad(loss(found, targets), parameters), reference, strict=True):
            assert (ours - theirs).norm() <= 1e-9 * theirs.norm(), (strategy, nonreversible)


@pytest.mark.parametrize("name", ["gpt-1m", "revgpt-1m"])
def test_no_token_sees_a_later_one(name: str) -> None:
    model = build_model(name, **SMALL).eval()
    tokens = torch.randint(256, (1, 20), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[0, 12] = (tokens[0, 12] + 1) % 256
    a, b = model(tokens), model(other)
    assert torch.equal(a[:, :12], b[:, :12])
    assert not torch.equal(a[:, 12:], b[:, 12:])


def test_a_turn_leaves_what_two_positions_have_to_say_to_each_other_to_their_distance() -> None:
    """Su et al. 2021, equation 16."""
    torch.manual_seed(0)
    q, k = (torch.randn(8, dtype=torch.float64).expand(1, 1, 30, 8) for _ in range(2))
    scores = (turned(q) @ turned(k).transpose(-1, -2))[0, 0]
    for distance in (0, 1, 7):
        along = scores.diagonal(distance)
        assert torch.allclose(along, along[0].expand_as(along), rtol=1e-12)
    assert not torch.allclose(scores[0, 0], scores[0, 7])


def test_the_loss_is_that_of_the_next_token() -> None:
    inputs, targets = uniform_tokens(6, 9)(3, torch.Generator().manual_seed(0))
    assert inputs.shape == targets.shape == (3, 6)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    logits = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    by_hand = [-F.log_softmax(logits[i, t], -1)[targets[i, t]] for i in range(3) for t in range(6)]
    assert token_cross_entropy(logits, targets).item() == pytest.approx(sum(map(float, by_hand)) / 18, rel=1e-12)


@pytest.mark.parametrize("model", ["gpt-1m", "revgpt-1m", "vit-1m", "revvit-1m"])
def test_operations_are_those_of_the_closed_form(model: str) -> None:
    """Forward: blocks and head, the embedding of patches too; backward: twice that, and of fused attention two and a half times,
    since it computes the scores again; under reconstruction all blocks once more."""
    a = TRANSFORMERS[model]
    batch = 3
    found = measure_flops(build_workload(Case(model=model, batch_size=batch)), progress=lambda _: None).metrics
    if isinstance(a, LanguageArchitecture):
        ends, of_input = 2 * a.tokens * a.width * a.vocabulary, 0
    else:
        assert isinstance(a, VisionArchitecture)
        patches = 2 * a.tokens * 3 * a.patch**2 * a.width
        ends, of_input = patches + 2 * a.width * a.num_classes, patches  # an image needs no gradient
    forward = batch * (a.block_flops + ends)
    attention_flops = batch * a.blocks * 4 * a.tokens**2 * a.width
    assert found["forward_flops"] == forward
    assert found["backward_flops"] == 2 * forward + attention_flops // 2 - batch * of_input
    if a.reversible:
        case = Case(model=model, batch_size=batch, strategy="reconstructed")
        ours = measure_flops(build_workload(case), progress=lambda _: None).metrics
        assert ours["step_flops"] == int(found["step_flops"]) + batch * a.block_flops  # type: ignore[arg-type]


def test_reconstruction_takes_the_same_memory_at_any_depth() -> None:
    peaks = {}
    for strategy in ("stored", "reconstructed"):
        for blocks in (2, 4, 8):
            case = Case(model="revgpt-1m", depth=blocks, sequence_length=32, batch_size=2, strategy=strategy)
            workload = build_workload(case)
            found = measure_memory(workload, progress=lambda _: None, timeline=False).metrics
            peaks[strategy, blocks] = found["activation_peak_without_gradients_bytes"]
    assert peaks["reconstructed", 2] == peaks["reconstructed", 4] == peaks["reconstructed", 8]
    assert peaks["stored", 8] > 3 * peaks["stored", 2]  # type: ignore[operator]


def test_the_null_is_of_a_weight_that_every_token_meets() -> None:
    one, other = (dict(build_workload(Case(model="revgpt-1m", ulp=ulp)).model.named_parameters()) for ulp in (0, 1))
    assert [name for name in one if not torch.equal(one[name], other[name])] == ["trunk.0.f.qkv.weight"]


def test_a_reversible_block_is_one_of_the_engine() -> None:
    model = build_model("revgpt-1m", **SMALL)
    assert all(isinstance(block, ReversibleBlock) for block in model.trunk)


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("gpt-1m", {"heads": 5}, "width=96 can't be shared by 5 heads"),
        ("gpt-1m", {"heads": 32}, "rotary positions need heads of an even width, not 3"),
        ("gpt-1m", {"positions": "none"}, "positions='none' must be learned or rotary"),
        ("gpt-1m", {"blocks": 0}, "blocks=0 must be an integer of at least 1"),
        ("gpt-1m", {"image_size": 32}, "unknown override of gpt-1m 'image_size'"),
        ("revvit-1m", {"image_size": 30}, "image_size=30 can't be cut into patches of 4"),
        ("revvit-1m", {"sequence_length": 8}, "unknown override of revvit-1m 'sequence_length'"),
    ],
)
def test_what_no_network_can_be(name: str, overrides: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        architecture(name, **overrides)


def test_more_tokens_than_learned_positions_are_refused() -> None:
    model = build_model("revgpt-1m", sequence_length=7, positions="learned")
    with pytest.raises(
        ValueError, match=r"tokens are \(2, 8\), and there are 7 learned positions; give shorter sequences"
    ):
        model(torch.zeros(2, 8, dtype=torch.int64))
