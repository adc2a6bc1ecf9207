"""Hears of every operator that PyTorch calls, in forward and in whatever backward runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

Tell = Callable[[Any, Sequence[Any], Mapping[str, Any], Any], None]


class EachOperator(TorchDispatchMode):
    """Inside, each operator is told of once it has run; a context manager.

    Args:
        tell: told the operator (``torch.ops.aten.mm.default``), its arguments and keyword arguments, and what it returned.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell = tell

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._tell(func, args, kwargs or {}, out)
        return out
