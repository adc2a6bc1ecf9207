"""Bytes of live tensors, counted as operations make storages and storages die."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from revbench.observing.operator_calls import Tell

_DEVICE = torch.ops.prim.device.default  # a fake tensor that is asked where it is; no operation of the step


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of every storage that a tensor operation returns, for as long as it lives.

    What it counts: storages, once each however many tensors view them; at the size that was asked for, or that they were
    resized to since, also past every operation (``x.untyped_storage().resize_(0)``, by which some reversible networks and
    sharded ones give memory back while the tensor lives).
    What was there before and nobody told of (a constant of a module) is not counted, nor are views of it.

    What it can't see: memory that a kernel takes and gives back inside one operation (workspace), the
    allocator's rounding and cache, the CUDA context, compressed sparse tensors. The count is the same on every device and does
    not depend on the allocator.

    Use it around whole steps, after `track` has been told of the tensors that exist already::

        live = LiveTensors()
        live.track(model.parameters(), model.buffers(), batch)
        with live:
            with live.phase("forward"):
                loss = model(x)

    Args:
        rounded: what a storage of so many bytes counts as.
        device: count only storages on this type of device, ``cuda`` say; all if None.
        observe: told of every operation: the operator, its arguments, what it returned.
        place: asked where the step is whenever a peak rises; by default nowhere, an empty name.

    Attributes:
        live_bytes: bytes alive now.
        peak_bytes: the most bytes alive at once.
        peak_place: where that was.
        phase_peak_bytes, phase_peak_places: the same for each phase, by its name.
        operations: how many there were.
    """

    def __init__(
        self,
        *,
        rounded: Callable[[int], int] = int,
        device: str | None = None,
        place: Callable[[], str] = str,
        observe: Tell | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self.peak_place = ""
        self.phase_peak_bytes: dict[str, int] = {}
        self.phase_peak_places: dict[str, str] = {}
        self.operations = 0
        self._rounded = rounded
        self._device = device
        self._ignored: set[int] = set()
        self._place = place
        self._observe = observe
        self._phases: list[tuple[str, int]] = []
        self._known: dict[int, tuple[Any, int, int]] = {}
        self._numbers = itertools.count()
        self._changes: list[tuple[int, int, int]] = []  # operation, storage, bytes
        self._gradients: set[int] = set()
        self._resizes = ExitStack()

    def __enter__(self) -> LiveTensors:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._resizes.enter_context(_told_of_resizes(self._see_resized))
        return self

    def __exit__(self, *exception: Any) -> None:
        self._resizes.close()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

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

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Never count these, which must outlive this tracker."""
        self._ignored |= {tensor.untyped_storage()._cdata for tensor in tensors}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note the peak between entry and exit under this name."""
        outer, self.peak_bytes = (self.peak_bytes, self.peak_place), self.live_bytes
        self.peak_place = ""
        self._phases.append((name, self.operations))
        try:
            yield
        finally:
            self.phase_peak_bytes[name] = self.peak_bytes
            self.phase_peak_places[name] = self.peak_place
            if outer[0] >= self.peak_bytes:
                self.peak_bytes, self.peak_place = outer

    def call_gradients(self, tensors: Iterable[Tensor]) -> int:
        """Say which of the storages that are alive now are gradients: the timeline counts them apart, from birth to death.

        Returns:
            Their bytes.
        """
        dense = [part for t in tensors for part in _parts(t)]
        found = {key: self._known[key] for t in dense if (key := t.untyped_storage()._cdata) in self._known}
        self._gradients |= {number for _, _, number in found.values()}
        return sum(nbytes for _, nbytes, _ in found.values())

    def timeline(self) -> dict[str, list[Any]]:
        """Returns what was alive after each operation.

        Returns:
            Columns ``operation`` (from 1), ``live_bytes``, of these ``gradient_bytes`` (those that `call_gradients`
            named), and ``phase``.
        """
        operations = range(1, self.operations + 1)
        live, gradients = [0] * (self.operations + 1), [0] * (self.operations + 1)
        for operation, storage, change in self._changes:
            at = min(operation, self.operations)
            live[at] += change
            if storage in self._gradients:
                gradients[at] += change
        phases = (next((p for p, start in reversed(self._phases) if at > start), "") for at in operations)
        return {
            "operation": list(operations),
            "live_bytes": list(itertools.accumulate(live))[1:],
            "gradient_bytes": list(itertools.accumulate(gradients))[1:],
            "phase": list(phases),
        }

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is _DEVICE:
            return out
        self.operations += 1
        if self._observe is not None:
            self._observe(func, args, kwargs or {}, out)
        if isinstance(out, Tensor):
            if _is_view(func):  # of what nobody knows yet: it was there before
                self._ignored |= {
                    key for part in _parts(out) if (key := part.untyped_storage()._cdata) not in self._known
                }
            self._see(out)
        elif isinstance(out, (tuple, list)):
            for item in out:
                if isinstance(item, Tensor):
                    self._see(item)
                elif isinstance(item, (tuple, list)):
                    self.track(item)
        elif out is None:  # it may have resized what it was given
            self.track(args)
        return out

    def _see(self, tensor: Tensor) -> None:
        for part in _parts(tensor):
            if self._device is None or part.device.type == self._device:
                self._see_storage(part.untyped_storage())

    def _see_resized(self, storage: torch.UntypedStorage) -> None:
        if self._device is None or storage.device.type == self._device:
            self._see_storage(storage)

    def _see_storage(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._ignored:
            return
        nbytes = self._rounded(storage.nbytes())
        known = self._known.get(key)
        if known is not None:
            weak, before, number = known
            if before == nbytes:
                return
            change = nbytes - before  # the storage was resized
        else:
            # The Python object of a storage lives as long as the storage itself.
            weak = weakref.ref(storage, lambda _, key=key: self._forget(key))  # type: ignore[misc]
            change, number = nbytes, next(self._numbers)
        self._known[key] = (weak, nbytes, number)
        self.live_bytes += change
        self._changes.append((self.operations, number, change))
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes = self.live_bytes
            self.peak_place = self._place()

    def _forget(self, key: int) -> None:
        _, nbytes, number = self._known.pop(key)
        self.live_bytes -= nbytes
        self._changes.append((self.operations + 1, number, -nbytes))  # the line after the last operation still has it


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Returns the tensors that have the storages: itself; of a sparse one indices and values; of a compressed one nothing."""
    if tensor.layout == torch.strided:
        return (tensor,)
    return (tensor._indices(), tensor._values()) if tensor.layout == torch.sparse_coo else ()


@functools.lru_cache(4096)
def _is_view(func: Any) -> bool:
    """Tells whether an operator returns its argument's memory: a view of it, or itself, unless it may take other memory for
    it."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.returns or schema.returns[0].alias_info is None:
        return False
    return not schema.name.endswith(("resize_", "set_", "resize_as_"))


@contextmanager
def _told_of_resizes(tell: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Inside, hear of every storage that Python resizes, which no dispatcher sees."""
    resize = torch.UntypedStorage.resize_

    def resize_(storage: torch.UntypedStorage, size: int) -> Any:
        result = resize(storage, size)
        tell(storage)
        return result

    torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]
