"""Something done around every call of a module, in forward, in backward and in a recomputation.

Without hooks, which would change what is watched: PyTorch and the strategies treat a module that has hooks as one
that may keep what it was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack


@contextmanager
def around_module_calls(
    around: Callable[[nn.Module], AbstractContextManager[Any]] | None = None,
    after: Callable[[nn.Module, Any], None] | None = None,
) -> Iterator[None]:
    """Inside, every call of any module in this process happens within ``around(module)``, and ``after(module, outputs)`` sees
    what it returned: one thread at a time. Compiled modules do not pass here.
    """
    plain: Any = nn.Module._call_impl

    def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with around(module) if around is not None else nullcontext():
            outputs = plain(module, *args, **kwargs)
        if after is not None:
            after(module, outputs)
        return outputs

    nn.Module._call_impl = called  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module._call_impl = plain  # type: ignore[method-assign]


def unless_entered(mode: TorchFunctionMode) -> AbstractContextManager[Any]:
    """Returns the mode, or nothing where it is entered already.

    Autograd's engine goes on without the modes of torch functions that surround it, so modules that backward runs
    again must enter them anew.
    """
    return nullcontext() if any(other is mode for other in _get_current_function_mode_stack()) else mode
