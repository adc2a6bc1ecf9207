"""Every coupling against its formula in plain autograd, in float64: values, gradients, inverse, arguments, several streams."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop.couplings import Affine, Coupling, HalfStep, Hamiltonian, Leapfrog, Midpoint, Momentum
from revbench.backprop.rules import Affine as AffineRule
from revbench.backprop.rules import Linear, Rule
from revbench.choices import COUPLINGS, STRATEGIES
from revbench.errors import UserError
from revbench.models.residual import ResidualFunction
from revbench.paper.couplings import parse_coupling
from revbench.probes.live_tensors import LiveTensors
from tests.backprop.chains import relative_difference

State = tuple[Tensor, ...]
Formula = Callable[[Sequence[Any], State], State]


def additive(blocks: Sequence[Any], state: State) -> State:
    x1, x2 = state
    for f, g in blocks:
        x1 = x1 + f(x2)
        x2 = x2 + g(x1)
    return x1, x2


def affine(blocks: Sequence[Any], state: State) -> State:
    def apply(x: Tensor, value: Tensor) -> Tensor:
        raw, shift = value[:, : x.shape[1]], value[:, x.shape[1] :]
        return torch.exp(torch.tanh(raw)) * x + shift

    x1, x2 = state
    for f, g in blocks:
        x1 = apply(x1, f(x2))
        x2 = apply(x2, g(x1))
    return x1, x2


def hamiltonian(blocks: Sequence[Any], state: State) -> State:
    q, p = state
    for f, g in blocks:
        q = q + 0.7 * f(p)
        p = p - 0.7 * g(q)
    return q, p


def momentum(blocks: Sequence[Any], state: State) -> State:
    v, x = state
    for f in blocks:
        v = 0.8 * v + (1 - 0.8) * f(x)
        x = x + v
    return v, x


def midpoint(blocks: Sequence[Any], state: State, *, euler: bool = False) -> State:
    older, newer = state
    for i, f in enumerate(blocks):
        older, newer = newer, older + (0.3 if euler and i == 0 else 0.6) * f(newer)
    return older, newer


def leapfrog(blocks: Sequence[Any], state: State) -> State:
    older, newer = state
    for f in blocks:
        older, newer = newer, 2 * newer - older + 0.25 * f(newer)
    return older, newer


# By name: the formula for a pair, what one tensor becomes, and what of the pair at the end is returned for it.
def halves(x: Tensor) -> State:
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


def joined(state: State) -> Tensor:
    return torch.cat(state, 1)


def newest(state: State) -> Tensor:
    return state[1]


FORMULAS: Mapping[str, tuple[Formula, Formula, Callable[[Tensor], State], Callable[[State], Tensor]]] = {
    "additive": (additive, additive, halves, joined),
    "affine": (affine, affine, halves, joined),
    "hamiltonian:0.7": (hamiltonian, hamiltonian, halves, joined),
    "momentum:0.8": (momentum, momentum, lambda x: (torch.zeros_like(x), x), newest),
    "midpoint:0.3": (midpoint, lambda b, s: midpoint(b, s, euler=True), lambda x: (x, x), newest),
    "leapfrog:0.5": (leapfrog, leapfrog, lambda x: (x, x), newest),
}
PAIRS = ("additive", "affine", "hamiltonian:0.7")


class Function(nn.Module):
    """A residual function with batch norm and dropout, so that a second call which leaves a trace is seen."""

    def __init__(self, width: int = 6, *, returns: int | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(width), nn.Linear(width, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, returns or width)
        )

    def forward(self, *streams: Tensor, scale: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        value: Tensor = self.body(streams[-1] + sum(s.cos() for s in streams[:-1]))
        value = value if scale is None else value * scale
        return value if mask is None else value.masked_fill(mask, 0.0)


def functions(name: str, blocks: int = 4) -> list[Any]:
    torch.manual_seed(0)
    returns = 12 if name.startswith("affine") else 6
    if name in PAIRS or name.startswith("affine"):
        return [(Function(returns=returns), Function(returns=returns)) for _ in range(blocks)]
    return [Function() for _ in range(blocks)]


def chain_of(name: str, strategy: Any = "reconstructed", blocks: int = 4) -> Any:
    return reversible(functions(name, blocks), coupling=name, strategy=strategy).double()


def waves(rows: int, columns: int) -> Tensor:
    return torch.linspace(-2, 3, rows * columns, dtype=torch.float64).mul(9).sin().view(rows, columns)


def left_behind(
    call: Callable[[], State | Tensor], inputs: Sequence[Tensor], modules: nn.Module
) -> list[Tensor | None]:
    """Values, gradients of inputs and parameters, buffers, after one forward and one backward pass."""
    torch.manual_seed(3)
    found = call()
    values = found if isinstance(found, tuple) else (found,)
    sum((y * (y.detach() + 1.7).sin()).sum() for y in values).backward()  # type: ignore[union-attr]
    gradients = [x.grad for x in (*inputs, *modules.parameters())]
    return [*values, *gradients, *(b for b in modules.buffers() if b.is_floating_point())]


def assert_close(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """To 1e-9 of the largest number of each tensor, or of 1: a bias before batch norm has a gradient of zero."""
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert (one - other).abs().max() <= 1e-9 * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_pair_goes_through_a_coupling_as_its_formula_says(name: str, strategy: str) -> None:
    formula, *_ = FORMULAS[name]
    expected_blocks, chain = nn.ModuleList(), chain_of(name, strategy)
    blocks = functions(name)
    for block in blocks:
        expected_blocks.extend(block if isinstance(block, tuple) else (block,))
    expected_blocks.double()
    ours, theirs = ([waves(5, 6 + i)[:, :6].clone().requires_grad_() for i in range(2)] for _ in range(2))
    expected = left_behind(lambda: formula(blocks, tuple(theirs)), theirs, expected_blocks)
    found = left_behind(lambda: chain(tuple(ours)), ours, chain)
    assert_close(found, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FORMULAS)
def test_one_tensor_goes_through_a_coupling_as_its_formula_says(name: str, strategy: str) -> None:
    _, formula, begin, end = FORMULAS[name]
    width = 12 if name in PAIRS else 6
    chain, blocks = chain_of(name, strategy), functions(name)
    modules = nn.ModuleList(m for block in blocks for m in (block if isinstance(block, tuple) else (block,))).double()
    ours, theirs = (waves(5, width).requires_grad_() for _ in range(2))
    expected = left_behind(lambda: end(formula(blocks, begin(theirs))), [theirs], modules)
    found = left_behind(lambda: chain(ours), [ours], chain)
    assert_close(found, expected)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_inverse_brings_back_what_entered(name: str) -> None:
    chain = chain_of(name).eval()
    pair = tuple(torch.randn(5, 6, dtype=torch.float64) for _ in range(2))
    back = chain.inverse(chain(pair))
    assert all(relative_difference([x], [y]) < 1e-9 for x, y in zip(back, pair, strict=True))
    if name in PAIRS:
        x = torch.randn(5, 12, dtype=torch.float64)
        assert relative_difference([chain.inverse(chain(x))], [x]) < 1e-12
    else:
        with pytest.raises(TypeError, match="needs both streams; call the chain and its inverse with a pair"):
            chain.inverse(torch.randn(5, 6, dtype=torch.float64))


@pytest.mark.parametrize("name", FORMULAS)
def test_arguments_reach_the_functions_of_every_coupling(name: str) -> None:
    """A mask, a context that needs gradient, and a parameter of the caller's, by keyword."""

    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy)
        width = 12 if name.startswith("affine") else 6
        scale = torch.linspace(0.5, 1.5, width, dtype=torch.float64).requires_grad_()
        mask = torch.arange(5 * width).view(5, width) % 3 == 0
        torch.manual_seed(1)
        x = torch.randn(5, 12 if name in PAIRS else 6, dtype=torch.float64).requires_grad_()
        chain(x, scale=scale, mask=mask).square().sum().backward()
        return [x.grad, scale.grad, *(p.grad for p in chain.parameters())]

    expected = gradients("stored")
    for strategy in STRATEGIES[1:]:
        assert relative_difference(gradients(strategy), expected) < 1e-9


def three_streams(blocks: Sequence[Any], state: State) -> State:
    x, y, z = state
    for f, g, h in blocks:
        x = x + f(y, z)
        y = y + g(z, x)
        z = z + h(x, y)
    return x, y, z


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("whole", [True, False])
def test_three_streams_take_turns(strategy: Any, whole: bool) -> None:
    torch.manual_seed(0)
    blocks = [tuple(Function() for _ in range(3)) for _ in range(3)]
    chain = reversible(blocks, strategy=strategy).double()

    def left(call: Callable[[Any], Any]) -> list[Tensor | None]:
        chain.zero_grad()
        torch.manual_seed(2)
        x = torch.randn(5, 18, dtype=torch.float64).requires_grad_()
        y = call(x if whole else tuple(x.split(6, 1)))
        y = y if isinstance(y, Tensor) else torch.cat(y, 1)
        (y * y.detach().sin()).sum().backward()
        return [y, x.grad, *(p.grad for p in chain.parameters())]

    expected = left(lambda x: three_streams(blocks, tuple(x.split(6, 1)) if whole else x))
    assert relative_difference(left(chain), expected) < 1e-9


class Rotation(Rule):
    """A rule of somebody's own: the stream and the function's value as the legs of a right angle; nothing says how to
    differentiate it."""

    def forward(self, b: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return b * torch.cosh(value) + torch.tanh(a[-1])

    def inverse(self, out: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return (out - torch.tanh(a[-1])) / torch.cosh(value)


class OfTwo(Hamiltonian):
    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        return [step._replace(rule=Rotation()) for step in super().half_steps(functions)]


def test_a_coupling_of_ones_own_needs_no_more_than_a_map_and_its_inverse() -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        torch.manual_seed(0)
        pairs = [(nn.Sequential(Function(), nn.Tanh()), nn.Sequential(Function(), nn.Tanh())) for _ in range(3)]
        chain = reversible(pairs, coupling=OfTwo(), strategy=strategy).double()
        x = torch.randn(5, 12, dtype=torch.float64).requires_grad_()
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("name", FORMULAS)
def test_kept_half_blocks(name: str, kept: int) -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy, blocks=3)
        chain.kept_half_blocks = kept
        torch.manual_seed(1)
        x = torch.randn(5, 12 if name in PAIRS else 6, dtype=torch.float64).requires_grad_()
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_of_one_stream_and_frozen_functions(name: str, which: int) -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy)
        for parameter in list(chain.parameters())[:9]:
            parameter.requires_grad_(False)
        torch.manual_seed(1)
        pair = [torch.randn(5, 6, dtype=torch.float64) for _ in range(2)]
        pair[which].requires_grad_()
        chain(tuple(pair))[which].square().sum().backward()
        return [pair[which].grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


@given(
    name=st.sampled_from(["additive", "affine:sigmoid", "affine", "hamiltonian", "momentum", "midpoint", "leapfrog"]),
    blocks=st.integers(1, 5),
    kept=st.integers(0, 4),
    streams=st.integers(2, 4),
    seed=st.integers(0, 2**31),
    frozen=st.sets(st.integers(0, 40)),
    autocast=st.booleans(),
)
def test_random_chains(
    name: str, blocks: int, kept: int, streams: int, seed: int, frozen: set[int], autocast: bool
) -> None:
    whole = name in ("momentum", "midpoint", "leapfrog")

    def gradients(strategy: Any) -> list[Tensor | None]:
        torch.manual_seed(seed)
        returns = 12 if name.startswith("affine") else 6
        count = 1 + streams % 2 if whole else streams
        made = [[Function(returns=returns) for _ in range(count)] for _ in range(blocks)]
        chain = reversible(made, coupling=name, strategy=strategy).double()
        chain.kept_half_blocks = kept
        for i, parameter in enumerate(chain.parameters()):
            parameter.requires_grad_(i not in frozen)
        x = torch.randn(4, 6 if whole else 6 * streams, dtype=torch.float64).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = chain(x)
        y.square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    # Under autocast products are of bfloat16, whose rounding a reconstructed input moves.
    assert relative_difference(gradients("reconstructed"), gradients("stored")) < (0.1 if autocast else 1e-9)


def test_a_scale_that_vanishes_is_refused_by_name() -> None:
    chain = reversible([(Function(returns=12), Function(returns=12)) for _ in range(3)], coupling="affine:exp").double()
    with torch.no_grad():
        chain.blocks[1].g.body[-1].bias[:6] = -2000.0  # type: ignore[index,union-attr]
    with pytest.raises(FloatingPointError, match="block 1's G gave a scale that is 0 to rounding, infinite or NaN"):
        chain(torch.randn(5, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reversible([], coupling="additiv"), "unknown coupling 'additiv'; did you mean 'additive'"),
        (lambda: reversible([], coupling="momentum:1"), "momentum:1: its number must be between 0 and 1"),
        (lambda: reversible([], coupling="midpoint:x"), "midpoint:x: its number must be above 0"),
        (lambda: reversible([], coupling="additive:2"), "additive has nothing to be given"),
        (lambda: reversible([], coupling="affine:tan"), "unknown scale of an affine coupling 'tan'"),
        (lambda: reversible([], coupling=3), "coupling=3 must be a name"),  # type: ignore[arg-type]
        (lambda: reversible([nn.Linear(2, 2)]), "block 0 of a reversible chain must be a pair"),
        (lambda: reversible([()], coupling="midpoint"), "block 0 of a reversible chain must be one or more"),
        (
            lambda: reversible([(nn.Linear(2, 2),) * 2, (nn.Linear(2, 2),) * 3]),
            "block 1 has 3 functions and block 0 has 2",
        ),
        (lambda: Momentum(0.0), "momentum:0: its number"),
        (lambda: Midpoint(-1.0), "midpoint:-1: its number must be above 0"),
        (lambda: Leapfrog(float("nan")), "leapfrog:nan"),
        (lambda: Affine("log"), "unknown scale"),  # type: ignore[arg-type]
    ],
)
def test_couplings_that_can_not_be(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("name", ["additive", "affine:exp", "momentum:0.95", "hamiltonian:0.1", "midpoint:1e-05"])
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    assert str(parse_coupling(name)) == name


@pytest.mark.parametrize("word", COUPLINGS)
def test_a_word_alone_has_a_number_of_its_own(word: str) -> None:
    written = str(parse_coupling(word))
    assert written == word if word == "additive" else written.startswith(f"{word}:")
    assert str(parse_coupling(written)) == written


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 7), "size 7 of dimension 1 is no multiple of its 3 streams"),
        ((torch.ones(2, 3),) * 2, "one tensor or 3 tensors as a tuple, not tuple of 2"),
    ],
)
def test_what_does_not_fit_three_streams(x: Any, message: str) -> None:
    chain = reversible([tuple(Function() for _ in range(3))])
    with pytest.raises((TypeError, ValueError), match=message):
        chain(x)


def test_an_affine_function_must_return_scale_and_shift() -> None:
    with pytest.raises(ValueError, match=r"of the shape \(5, 12\): scale and shift of a stream of shape \(5, 6\)"):
        reversible([(Function(), Function())], coupling="affine").double()(torch.randn(5, 12, dtype=torch.float64))


def test_what_entered_is_kept_and_may_not_be_changed() -> None:
    chain, x = chain_of("midpoint:0.3"), torch.randn(5, 6, dtype=torch.float64).requires_grad_()
    inner = x * 1.5
    y = chain(inner)
    with torch.no_grad():
        inner.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place between forward and backward, and its coupling keeps it"):
        y.sum().backward()


def test_a_coupling_is_an_object_of_its_own() -> None:
    assert Midpoint(0.3) == Midpoint(0.3) != Midpoint(0.4)


def peak_in_streams(name: str, blocks: int) -> float:
    """Peak of forward and backward above the steady state, in units of one stream."""
    stream = torch.randn(4, 16, 16, 16)
    returns = 32 if name == "affine" else 16

    def function() -> nn.Module:
        return ResidualFunction(16, returns)

    functions: list[Any] = [(function(), function()) if name in PAIRS else function() for _ in range(blocks)]
    chain = reversible(functions, coupling=name)
    for parameter in chain.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live = LiveTensors()
    live.track(chain, stream)
    steady = live.live_bytes
    with live:
        x = stream * 1.5
        y = chain((x, x * 0.5)) if name in PAIRS else chain(x)
        del x
        sum(half.mean() for half in (y if isinstance(y, tuple) else (y,))).backward()  # type: ignore[union-attr]
    return (live.peak_bytes - steady) / (stream.numel() * 4)


@pytest.mark.parametrize("name", FORMULAS)
def test_bytes_do_not_grow_with_depth_and_are_those_of_additive_halves(name: str) -> None:
    shallow, deep = peak_in_streams(name, 4), peak_in_streams(name, 12)
    assert deep == pytest.approx(shallow, rel=0.01)
    additive_peak = peak_in_streams("additive", 4)
    if name.startswith("affine"):  # its functions return two streams, and its own graph keeps s, its exponent and b
        assert deep < 2.2 * additive_peak
    else:
        kept = 1.0 if name.startswith(("midpoint", "leapfrog", "momentum")) else 0.0  # what entered
        assert deep < 1.02 * additive_peak + kept


def norm_tanh() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh())


def errors_of_gradients(coupling: Coupling, blocks: int) -> list[float]:
    """Of each function's gradient in float32, relative to stored activations in float64."""
    torch.manual_seed(0)
    chain = reversible([norm_tanh() for _ in range(blocks)], coupling=coupling)
    x = torch.randn(8, 16)

    def gradients(strategy: Any, dtype: torch.dtype) -> list[Tensor]:
        chain.strategy = strategy
        chain.to(dtype).zero_grad()
        chain(x.to(dtype)).square().sum().backward()
        return [torch.cat([p.grad.double().flatten() for p in block.parameters()]) for block in chain.blocks]  # type: ignore[union-attr]

    found, expected = gradients("reconstructed", torch.float32), gradients("stored", torch.float64)
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FORMULAS)
def test_on_a_gpu(name: str) -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy).cuda()
        torch.manual_seed(1)
        x = torch.randn(5, 12 if name in PAIRS else 6, dtype=torch.float64).cuda().requires_grad_()
        torch.manual_seed(2)
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


def test_activations_that_are_lost_are_told_of() -> None:
    with pytest.warns(UserWarning, match="reconstruction has lost the activations that block .*off by about"):
        errors = errors_of_gradients(Momentum(0.5), 40)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-5


@pytest.mark.parametrize(
    "kind",
    [
        lambda keep: Midpoint(0.5, keep_first=keep),
        lambda keep: Leapfrog(0.5, keep_first=keep),
        lambda keep: Momentum(0.85, keep_first=keep),
    ],
)
def test_the_first_functions_gradient_is_mended_by_keeping_what_it_was_given(kind: Callable[[bool], Coupling]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how much it grows
        forgotten, kept = errors_of_gradients(kind(False), 60), errors_of_gradients(kind(True), 60)
    assert forgotten[0] > 1.5 * kept[0]
    assert kept[1:] == forgotten[1:]  # they are further on, and nothing is changed for them


class Doubling(Linear):
    """A rule that is made of the linear one and does more."""

    def forward(self, b: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return b * 2 + value

    def inverse(self, out: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return (out - value) / 2


class Weighted(Rule):
    """A rule that holds a weight, whose gradient nobody would ask for."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, b: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return b * self.weight.exp() + value

    def inverse(self, out: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return (out - value) / self.weight.exp()


def chain_with(rule: Rule, strategy: Any) -> Any:
    class Coupled(Hamiltonian):
        def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
            return [step._replace(rule=rule) for step in super().half_steps(functions)]

    torch.manual_seed(0)
    pairs = [(nn.Linear(6, 6), nn.Linear(6, 6)) for _ in range(3)]
    return reversible(pairs, coupling=Coupled(), strategy=strategy).double()


def test_a_rule_that_is_made_of_the_linear_one_has_its_own_gradient() -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain, x = chain_with(Doubling(), strategy), waves(5, 12).requires_grad_()
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


def test_a_weight_in_a_rule_is_refused() -> None:
    y = chain_with(Weighted(), "reconstructed")(waves(5, 12))
    with pytest.raises(RuntimeError, match="gradient"):
        y.square().sum().backward()


def test_a_hook_on_any_of_the_streams_is_refused() -> None:
    class Hooks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, y: Tensor, z: Tensor) -> Tensor:
            if z.requires_grad:
                z.register_hook(lambda g: g * 0.5)
            return self.linear(y * z).tanh()

    chain = reversible([tuple(Hooks() for _ in range(3)) for _ in range(2)]).double()
    with pytest.raises(RuntimeError, match="hooks the gradient of its input"):
        chain(waves(5, 18).requires_grad_())


class Wrapped(nn.Module):
    """What wraps a block, as sharding and compilation do."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.block(*args, **kwargs)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["additive", "midpoint:0.3"])
def test_arguments_reach_a_block_that_is_wrapped(name: str, strategy: str) -> None:
    chain = chain_of(name, strategy).eval()
    x = waves(5, 12 if name in PAIRS else 6)
    mask = torch.arange(30).view(5, 6) % 2 == 0
    expected = chain(x, mask=mask).detach()
    chain.blocks[0] = Wrapped(chain.blocks[0])
    assert relative_difference([chain(x, mask=mask).detach()], [expected]) < 1e-12


def test_arguments_of_a_second_function_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="g_kwargs are of each block's second function, and here a block has one"):
        chain_of("midpoint:0.3")(waves(5, 6), g_kwargs={"mask": None})


def test_kept_half_blocks_need_no_inverse() -> None:
    def chain(strategy: Any) -> Any:
        torch.manual_seed(0)
        made = reversible(
            [(nn.Linear(6, 12), nn.Linear(6, 12)) for _ in range(2)], coupling="affine:exp", strategy=strategy
        )
        with torch.no_grad():
            made.blocks[1].g.bias[:6] = -200.0  # type: ignore[union-attr,index]
        made.kept_half_blocks = 1
        return made.double()

    x = waves(5, 12)
    assert torch.equal(chain("reconstructed")(x), chain("stored")(x))


def test_what_enters_is_blamed_before_the_scale() -> None:
    chain = reversible([(nn.Linear(4, 8), nn.Linear(4, 8))], coupling="affine")
    with pytest.raises(FloatingPointError, match="is given values that are NaN"):
        chain(torch.full((2, 8), torch.nan))


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_complex_streams_are_scaled_too() -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        torch.manual_seed(0)
        pairs = [(nn.Linear(3, 6), nn.Linear(3, 6)) for _ in range(3)]
        chain = reversible(pairs, coupling="affine", strategy=strategy).to(torch.complex128)
        chain(torch.complex(waves(5, 6), waves(5, 6).cos())).abs().sum().backward()
        return [torch.view_as_real(p.grad) for p in chain.parameters() if p.grad is not None]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


def test_scales_are_those_of_forward_under_autocast() -> None:
    rule = AffineRule(1, "exp")
    value = torch.randn(4, 12).bfloat16()
    stream = torch.randn(4, 6)
    out = rule.forward(stream, [], value)
    assert out.dtype is torch.float32
    assert relative_difference([rule.inverse(out, [], value)], [stream]) < 1e-6


@pytest.mark.parametrize(("coupling", "raw"), [("affine:exp", -4.0), ("affine:sigmoid", -8.0)])
def test_activations_that_a_small_scale_loses_are_told_of(coupling: str, raw: float) -> None:
    def half() -> nn.Module:
        made = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32))
        nn.init.constant_(made[1].bias[:16], raw)
        return made

    torch.manual_seed(0)
    chain = reversible([(half(), half()) for _ in range(3)], coupling=coupling)
    with pytest.warns(UserWarning, match="reconstruction has lost the activations"):
        chain(torch.randn(64, 32)).square().mean().backward()
