"""What surrounds a call and changes what it computes: taken in forward, entered again in backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.utils import parametrize
from torch.overrides import _get_current_function_mode_stack

_NOTHING = nullcontext()


class Surroundings:
    """Autocast, the default dtype and the modes of torch functions (a default device is one) at one moment.

    Args:
        device: of the call's tensors.

    Attributes:
        autocast_dtype: what autocast computes in; None where it is off.
    """

    def __init__(self, device: torch.device) -> None:
        self._autocast: tuple[str, bool, torch.dtype] | None = None
        if torch.amp.is_autocast_available(device.type):
            enabled = torch.is_autocast_enabled(device.type)
            self._autocast = (device.type, enabled, torch.get_autocast_dtype(device.type))
        self.autocast_dtype = self._autocast[2] if self._autocast is not None and self._autocast[1] else None
        self._default_dtype = torch.get_default_dtype()
        self._modes = _get_current_function_mode_stack()

    def again(self) -> AbstractContextManager[Any]:
        """Inside, a call is surrounded by the same; caches of casts and of parametrized weights, which belong to the other
        call (one made without gradient would be taken by a call that wants one), are set aside.
        """
        same = torch.get_default_dtype() is self._default_dtype and not self._modes and not parametrize._cache_enabled
        if same and (self._autocast is None or not (self._autocast[1] or torch.is_autocast_enabled(self._autocast[0]))):
            return _NOTHING
        return self._entered()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with ExitStack() as entered:
            there = torch.get_default_dtype()
            if there is not self._default_dtype:
                torch.set_default_dtype(self._default_dtype)
                entered.callback(torch.set_default_dtype, there)
            active = _get_current_function_mode_stack()
            for mode in self._modes:
                if not any(mode is other for other in active):
                    entered.enter_context(mode)
            if self._autocast is not None:
                device, enabled, dtype = self._autocast
                if enabled or torch.is_autocast_enabled(device):
                    entered.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False))
            if parametrize._cache_enabled:
                entered.enter_context(_parametrization_cache_aside())
            yield


@contextmanager
def _parametrization_cache_aside() -> Iterator[None]:
    kept = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = kept
