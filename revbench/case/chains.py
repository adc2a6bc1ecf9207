"""The chains of `revbench.peers`, by which libraries are compared and depth is gone through: how a case names one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from revbench.case.definition import Case
from revbench.case.factories import Factory
from revbench.choices import PEERS
from revbench.errors import UserError

_MODULE, _ATTRIBUTE = "revbench.peers", "chain"


@dataclass(frozen=True)
class Chain:
    """A chain of reversible blocks, as a case names it.

    Attributes:
        factory: the name.
    """

    factory: Factory

    @classmethod
    def of(cls, case: Case) -> Chain | None:
        """Returns the chain of a case; None if its network is another, or its name, which may be a stranger's, is none."""
        try:
            factory = case.factory
        except UserError:
            return None
        return cls(factory) if factory is not None and factory.module == _MODULE else None

    @cached_property
    def blocks(self) -> int | None:
        """How many; None of a name that does not say, as of a whole family."""
        found = self.factory.arguments.get("blocks")
        return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None

    @property
    def kind(self) -> str | None:
        """``basic`` or ``bottleneck``; None if the name does not say."""
        found = self.factory.arguments.get("kind")
        return None if found is None else str(found)

    @property
    def names_library(self) -> bool:
        """Whether it is one of those that are compared with other libraries', not one of growing depth."""
        return "library" in self.factory.arguments

    @property
    def library(self) -> str:
        """Whose implementation back-propagates it."""
        return str(self.factory.arguments.get("library", "revbench"))

    @property
    def is_foreign(self) -> bool:
        """Whether that is another library."""
        return self.library in PEERS

    @property
    def has_tripwire(self) -> bool:
        """Whether our engine watches it, as it does unless told otherwise."""
        return self.factory.arguments.get("tripwire") is not False

    def family(self) -> str:
        """Returns the same model at any depth."""
        return str(self.factory.with_arguments(blocks=None))

    def ours(self) -> str:
        """Returns the same blocks in our own implementation, watched."""
        factory = self.factory.with_arguments(tripwire=None)
        return str(factory.with_arguments(library="revbench") if self.names_library else factory)


def chain_model(kind: str, blocks: int, *, library: str | None = None, tripwire: bool = True) -> str:
    """Returns the name of a chain.

    Args:
        kind: ``basic`` or ``bottleneck``.
        blocks: how many.
        library: whose implementation; not named if None, as in chains of growing depth.
        tripwire: of our engine.
    """
    named = {} if library is None else {"library": library}
    factory = Factory(_MODULE, _ATTRIBUTE).with_arguments(**named, kind=kind, blocks=blocks)
    return str(factory if tripwire else factory.with_arguments(tripwire=False))
