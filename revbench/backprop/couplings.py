"""The couplings that come with revbench, and a coupling by its name.

`Additive`, `Affine` and `Hamiltonian` split what enters among the streams; `Midpoint`, `Leapfrog` and `Momentum` go on from two
states of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from revbench.backprop.coupling import Coupling, HalfStep, Split, State, Whole, function_names
from revbench.backprop.rules import Affine as AffineRule
from revbench.backprop.rules import Linear, Rule
from revbench.choices import AffineScale
from revbench.errors import UserError
from revbench.paper.couplings import NamedCoupling, check_number, parse_coupling

_IDENTITY = nn.Identity()


@dataclass(frozen=True)
class Additive(Split):
    """``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` (Gomez et al. 2017, equation 6)."""

    @property
    def named(self) -> NamedCoupling:
        """``additive``."""
        return NamedCoupling("additive")

    def _rule(self, index: int) -> Rule:
        return Linear()


@dataclass(frozen=True)
class Hamiltonian(Split):
    """``y1 = x1 + h F(x2)``, ``y2 = x2 - h G(y1)``: symplectic Euler steps, F and G being the derivatives of a separable energy
    (Chang et al. 2018).

    Attributes:
        step: h.

    Raises:
        UserError: a step that is not above 0.
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        check_number("hamiltonian", self.step)

    @property
    def named(self) -> NamedCoupling:
        """``hamiltonian:h``."""
        return NamedCoupling("hamiltonian", self.step)

    def _rule(self, index: int) -> Rule:
        return Linear(scale=-self.step if index % 2 else self.step)


@dataclass(frozen=True)
class Affine(Split):
    """``y1 = s(x2) x1 + t(x2)``, and so on (Dinh et al. 2017); each function returns s and t one after the other,
    so twice the size of a stream along `dim`.

    Attributes:
        scale: how s is made of what a function returns: `revbench.backprop.rules.Affine`.
        dim: along which a function returns twice the size.

    Raises:
        UserError: an unknown scale.
    """

    scale: AffineScale = "tanh"
    dim: int = 1

    def __post_init__(self) -> None:
        self._rule(0)

    @property
    def named(self) -> NamedCoupling:
        """``affine:scale``."""
        return NamedCoupling("affine", scale=self.scale)

    def _rule(self, index: int) -> Rule:
        return AffineRule(self.dim, self.scale)


@dataclass(frozen=True)
class Momentum(Whole):
    """``v' = g v + (1 - g) F(x)``, ``x' = x + v'`` on streams ``(v, x)`` (Sander et al. 2021).

    The inverse divides by g at each function, which is so many times the error: 0.9 to the -100 is 38,000.

    Attributes:
        share: g, of the velocity that is kept, between 0 and 1.
        keep_first: as of `Midpoint`.

    Raises:
        UserError: another share.
    """

    share: float = 0.9

    def __post_init__(self) -> None:
        check_number("momentum", self.share)

    @property
    def named(self) -> NamedCoupling:
        """``momentum:g``."""
        return NamedCoupling("momentum", self.share, forgets=not self.keep_first)

    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        """Returns two for each function: its velocity, and the position after it."""
        found = []
        for i, (f, name) in enumerate(zip(functions, function_names(len(functions)), strict=True)):
            found.append(HalfStep(f, Linear(keep=self.share, scale=1 - self.share), name, i))
            found.append(HalfStep(_IDENTITY, Linear(), f"position after {name}", None))
        return found

    def start(self, x: Tensor, dim: int, streams: int) -> State:
        """Returns no velocity, and the tensor."""
        return torch.zeros_like(x), x


@dataclass(frozen=True)
class Midpoint(Whole):
    """``x_{n+1} = x_{n-1} + 2 h F(x_n)`` on streams ``(x_{n-1}, x_n)`` (Chang et al. 2018; of language models Gal et al. 2025).

    Of one tensor the first step is an Euler step, ``x_1 = x_0 + h F(x_0)``.

    Attributes:
        step: h.
        keep_first: keep the later of the streams that enter, for the function that is furthest on the way back.

    Raises:
        UserError: a step that is not above 0.
    """

    step: float = 0.5

    def __post_init__(self) -> None:
        check_number("midpoint", self.step)

    @property
    def named(self) -> NamedCoupling:
        """``midpoint:h``."""
        return NamedCoupling("midpoint", self.step, forgets=not self.keep_first)

    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        """Returns one for each function."""
        scales = [self.step if starts and i == 0 else 2 * self.step for i in range(len(functions))]
        parts = zip(functions, scales, function_names(len(functions)), strict=True)
        return [HalfStep(f, Linear(scale=scale), name, i) for i, (f, scale, name) in enumerate(parts)]


@dataclass(frozen=True)
class Leapfrog(Whole):
    """``x_{n+1} = 2 x_n - x_{n-1} + h² F(x_n)`` on streams ``(x_{n-1}, x_n)`` (Chang et al. 2018), which is its own
    inverse; of one tensor both begin as it.

    Attributes:
        step: h.
        keep_first: as of `Midpoint`.

    Raises:
        UserError: a step that is not above 0.
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        check_number("leapfrog", self.step)

    @property
    def named(self) -> NamedCoupling:
        """``leapfrog:h``."""
        return NamedCoupling("leapfrog", self.step, forgets=not self.keep_first)

    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        """Returns one for each function."""
        rule, names = Linear(keep=-1.0, take=2.0, scale=self.step**2), function_names(len(functions))
        return [HalfStep(f, rule, name, i) for i, (f, name) in enumerate(zip(functions, names, strict=True))]


ADDITIVE = Additive()


def coupling_of(given: str | Coupling, *, dim: int = 1) -> Coupling:
    """Returns a coupling by its name; one that is given is returned as it is.

    Args:
        given: as `revbench.paper.couplings.parse_coupling` takes it.
        dim: of ``affine``.

    Raises:
        UserError: no such coupling.
    """
    if isinstance(given, Coupling):
        return given
    if not isinstance(given, str):
        raise UserError(f"coupling={given!r} must be a name or a coupling of revbench.backprop.couplings")
    found = parse_coupling(given)
    if found.name == "affine":
        return Affine(found.scale, dim)  # type: ignore[arg-type]
    if found.name == "hamiltonian":
        return Hamiltonian(found.number)
    kinds: Mapping[str, Callable[..., Coupling]] = {"momentum": Momentum, "midpoint": Midpoint, "leapfrog": Leapfrog}
    return kinds[found.name](found.number, keep_first=not found.forgets) if found.name in kinds else ADDITIVE
