"""A network that a function of somebody's makes: ``package.module:factory(name=value,...)``."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from revbench.errors import UserError

_DOTTED, _ARGUMENT = r"\w+(?:\.\w+)*", r"\w+=[\w.:+-]+"
_FORM = re.compile(rf"({_DOTTED}):({_DOTTED})(?:\(((?:{_ARGUMENT}(?:,{_ARGUMENT})*)?)\))?")


@dataclass(frozen=True)
class Factory:
    """The name of a factory and of the values that it is called with.

    Attributes:
        module, attribute: where it is.
        written: its keyword arguments, as they are written.
    """

    module: str
    attribute: str
    written: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, model: str) -> Factory:
        """Returns the factory of this name.

        Raises:
            UserError: it has another form, or gives an argument twice.
        """
        return _parsed(model)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The values: an integer, a number, True, False, or else a word as it is."""
        return {name: _value(text) for name, text in self.written}

    def with_arguments(self, **changes: Any) -> Factory:
        """Returns the same factory with other values; an argument that it has stays where it stands, None takes it away."""
        written = {**dict(self.written), **{name: str(value) for name, value in changes.items()}}
        kept = ((name, text) for name, text in written.items() if name not in changes or changes[name] is not None)
        return Factory(self.module, self.attribute, tuple(kept))

    def __str__(self) -> str:
        listed = ",".join(f"{name}={text}" for name, text in self.written)
        return f"{self.module}:{self.attribute}" + (f"({listed})" if listed else "")


@lru_cache(maxsize=4096)  # a report asks again and again
def _parsed(model: str) -> Factory:
    found = _FORM.fullmatch(model)
    if found is None:
        raise UserError(f"model {model!r} is no package.module:factory or package.module:factory(name=value,...)")
    module, attribute, listed = found.groups()
    written: dict[str, str] = {}
    for entry in listed.split(",") if listed else ():
        name, _, text = entry.partition("=")
        if name in written:
            raise UserError(f"model {model!r} gives {name} twice")
        value = _value(text)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UserError(f"model {model[:60]!r}: {name} can't be so large a number")
        written[name] = text
    return Factory(module, attribute, tuple(written.items()))


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
