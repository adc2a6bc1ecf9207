"""What tells two tensors apart for a hundredth or a thousandth of their size: sums of runs, in one pass over memory.

A tensor's numbers, as they lie in memory, are added up in runs of 251. Sums are linear, so the difference of two
fingerprints is the fingerprint of the difference, and its Euclidean norm estimates that of the difference, if the numbers of a
run are uncorrelated exactly so on average. The length of a run is prime and divides no dimension, so that it never is a
whole row or channel, whose sums can be constant (after layer norm, say). Of a tensor above 65,536 numbers only so many runs
are read, at most every 32nd, other ones at each call, that they make about 32,768 numbers: no second thread is worth its
while for those. What cancels within runs is not seen, and what changes in so small a place of a large tensor that it lies
between the runs is seen at another call.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

PHASES = 33
_RUNS = (251, 241, 127, 113, 61, 59, 31, 29, 13, 11, 7, 5, 3, 2)
_SUMS = 64  # so many of them at least: shorter runs for smaller tensors
_READ = 1 << 15  # so many numbers are read of a large tensor, as far as every 32nd run makes as many

Order = tuple[int, ...]


def fingerprint(value: Tensor, order: Order | None = None, phase: int = 0) -> tuple[Tensor, Order | None]:
    """Returns sums of runs of a tensor's numbers. Call it without gradient.

    Args:
        value: floating point or complex, any shape, strides and device.
        order: the dimensions from the outermost in memory to the innermost, as an earlier call returned it; two
            fingerprints are comparable if they were taken in one order.
        phase: which of `PHASES` sets of runs is read; likewise.

    Returns:
        One dimension, float32, of float64 tensors float64, on the tensor's device; and the order, None for contiguous ones.
    """
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        with (
            torch._C._DisableTorchDispatch(),
            torch._C.DisableTorchFunction(),
        ):  # not to be seen by who counts operations
            return _fingerprint(value, order, phase)
    return _fingerprint(value, order, phase)


def numbers_read(value: Tensor) -> int:
    """Returns how many of a tensor's numbers about go into its fingerprint."""
    return max(1, value.numel() // _every(value.numel()))


def _every(count: int) -> int:
    """Says which run of so many numbers is read: every so manyth: all below 65,536."""
    return max(1, min(PHASES - 1, count // _READ))


@functools.lru_cache(1024)
def _run(shape: tuple[int, ...]) -> int:
    """Returns the length of the runs of a tensor of this shape."""
    count = math.prod(shape)
    return next((run for run in _RUNS if run * _SUMS <= count and all(size % run for size in shape)), 1)


def _fingerprint(value: Tensor, order: Order | None, phase: int) -> tuple[Tensor, Order | None]:
    if order is None and not value.is_contiguous():
        strides = value.stride()
        order = tuple(sorted(range(value.dim()), key=lambda d: -strides[d]))
    if order is not None:
        value = value.permute(order)
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    value = value.contiguous()
    count = value.numel()
    run = _run(value.shape)
    every = _every(count)
    group = every * run
    if every > 1:  # in the last phase the runs that end with the tensor
        phase %= every + 1
        start = phase * run if phase < every else (count - run) % group
    else:  # the rest that makes no run is at the end, at the beginning, or in part at both
        start = phase * (count % run) // (PHASES - 1)
    rows = (count - start - run) // group + 1
    runs = value.as_strided((rows, run), (group, 1), value.storage_offset() + start)
    return runs.sum(1, dtype=torch.float64 if value.dtype == torch.float64 else torch.float32), order
