"""Bytes of live tensors, counted as operations make storages and storages die."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of every storage that a tensor operation returns, for as long as it lives.

    What it counts: storages, once each however many tensors view them; at the size that was asked for.
    What it can't see: memory that a kernel takes and gives back inside one operation (workspace), the
    allocator's rounding and cache, the CUDA context, compressed sparse tensors. The count is the same on every device and does
    not depend on the allocator.

    Use it around whole steps, after `track` has been told of the tensors that exist already::

        live = LiveTensors()
        live.track(model.parameters(), model.buffers(), batch)
        with live:
            with live.phase("forward"):
                loss = model(x)

    Attributes:
        live_bytes: bytes alive now.
        peak_bytes: the most bytes alive at once, since the beginning or the last `reset_peak`.
        phase_peak_bytes: the peak of each phase, by its name.
        timeline: after each operation that changed it, ``(operation, live bytes)``, if asked for.
    """

    def __init__(self, *, timeline: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self.phase_peak_bytes: dict[str, int] = {}
        self.timeline: list[tuple[int, int]] | None = [] if timeline else None
        self.phase_starts: dict[str, int] = {}
        self.operations = 0
        self._known: dict[int, tuple[Any, int]] = {}

    def track(self, *groups: Iterable[Any] | Tensor | Mapping[Any, Any] | nn.Module) -> None:
        """Count tensors that exist already, in any nesting of modules, lists, tuples and dicts."""
        for group in groups:
            if isinstance(group, Tensor):
                self._see(group)
                if group.grad is not None:
                    self._see(group.grad)
            elif isinstance(group, nn.Module):
                self.track(group.parameters(), group.buffers())
            elif isinstance(group, Mapping):
                self.track(*group.values())
            elif isinstance(group, Iterable) and not isinstance(group, str):
                self.track(*group)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note the peak between entry and exit under this name."""
        outer, self.peak_bytes = self.peak_bytes, self.live_bytes
        self.phase_starts[name] = self.operations
        try:
            yield
        finally:
            self.phase_peak_bytes[name] = max(self.phase_peak_bytes.get(name, 0), self.peak_bytes)
            self.peak_bytes = max(outer, self.peak_bytes)

    def reset_peak(self) -> None:
        """Begin again with the peaks, the timeline and the phases; what is alive stays counted."""
        self.peak_bytes = self.live_bytes
        self.phase_peak_bytes.clear()
        self.phase_starts.clear()
        self.operations = 0
        if self.timeline is not None:
            self.timeline.clear()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if isinstance(out, Tensor):
            self._see(out)
        elif isinstance(out, (tuple, list)):
            for item in out:
                if isinstance(item, Tensor):
                    self._see(item)
                elif isinstance(item, (tuple, list)):
                    self.track(item)
        if self.timeline is not None:
            self.timeline.append((self.operations, self.live_bytes))
        return out

    def _see(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:
            if tensor.layout == torch.sparse_coo:
                self._see(tensor._indices())
                self._see(tensor._values())
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        nbytes = storage.nbytes()
        known = self._known.get(key)
        if known is not None:
            if known[1] == nbytes:
                return
            self.live_bytes -= known[1]  # the storage was resized
            self._known[key] = (known[0], nbytes)
        else:
            # The Python object of a storage lives as long as the storage itself.
            self._known[key] = (weakref.ref(storage, lambda _, key=key: self._forget(key)), nbytes)  # type: ignore[misc]
        self.live_bytes += nbytes
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes = self.live_bytes

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._known.pop(key)[1]
