"""In which arithmetic PyTorch computes products and convolutions of float32: the two interfaces that it has for that.

Up to PyTorch 2.8 there are `allow_tf32` and `set_float32_matmul_precision`. From 2.9 on there is `fp32_precision` beside them,
one for each operation, and reading the older ones raises where the two disagree, which parts of PyTorch itself do (inductor's
cache reads the precision of products). So both are set, in the order in which they agree in the end, and the newer one is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Float32(NamedTuple):
    """How float32 is computed with.

    Attributes:
        tf32_matmul: products of matrices on a GPU take TF32.
        tf32_convolution: convolutions on a GPU, and recurrent layers of cuDNN, take TF32.
        exact_cpu: products and convolutions on the CPU are of float32, and not of something shorter.
    """

    tf32_matmul: bool = False
    tf32_convolution: bool = False
    exact_cpu: bool = True


_GPU = {"tf32_matmul": ("matmul",), "tf32_convolution": ("conv", "rnn")}
_CPU = ("matmul", "conv", "rnn")
_cudnn: Any = torch.backends.cudnn  # a module in whose place an object stands, which type checkers do not see


def set_float32(*, tf32_matmul: bool, tf32_convolution: bool) -> None:
    """Set how this process computes with float32 on a GPU; on the CPU it computes exactly.

    Source: PyTorch's notes on CUDA semantics, "TensorFloat-32 (TF32) on Ampere (and later) devices".
    """
    with _no_word_of_the_older():
        torch.set_float32_matmul_precision("high" if tf32_matmul else "highest")
        _cudnn.allow_tf32 = tf32_convolution
    if _per_operation():
        for operation in _GPU["tf32_convolution"]:
            _set("cuda", operation, "tf32" if tf32_convolution else "ieee")
        for operation in _CPU:
            _set("mkldnn", operation, "ieee")


def float32_in_force() -> Float32:
    """Returns how this process computes with float32, by whichever interface and by whomever that was set."""
    if not _per_operation():
        exact = torch.get_float32_matmul_precision() != "medium"
        return Float32(torch.backends.cuda.matmul.allow_tf32, _cudnn.allow_tf32, exact)
    gpu = {field: any(_get("cuda", operation) == "tf32" for operation in _GPU[field]) for field in _GPU}
    return Float32(**gpu, exact_cpu=all(_get("mkldnn", operation) in ("ieee", "none") for operation in _CPU))


@contextmanager
def without_tf32() -> Iterator[None]:
    """Tells products and convolutions, inside, to be of float32; afterwards each is as it was."""
    places = [("cuda", operation) for operations in _GPU.values() for operation in operations]
    places += [("mkldnn", operation) for operation in _CPU]
    before = float32_in_force()
    found = {place: _get(*place) for place in places} if _per_operation() else {}
    products = "highest" if before.exact_cpu and not before.tf32_matmul else "high" if before.exact_cpu else "medium"
    set_float32(tf32_matmul=False, tf32_convolution=False)
    try:
        yield
    finally:
        with _no_word_of_the_older():
            torch.set_float32_matmul_precision(products)
            _cudnn.allow_tf32 = before.tf32_convolution
        for (backend, operation), precision in found.items():
            _set(backend, operation, precision)


def _per_operation() -> bool:
    """Tells whether this PyTorch has a setting for each operation: 2.9 and later."""
    return hasattr(torch._C, "_get_fp32_precision_getter")


def _get(backend: str, operation: str) -> str:
    precision: str = torch._C._get_fp32_precision_getter(backend, operation)
    return precision


def _set(backend: str, operation: str, precision: str) -> None:
    torch._C._set_fp32_precision_setter(backend, operation, precision)


@contextmanager
def _no_word_of_the_older() -> Iterator[None]:
    """Leaves out the warning of some versions that there is a newer interface."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
