"""Both interfaces of PyTorch to one setting, whoever used which of them before."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

from revbench.devices import float32
from revbench.devices.float32 import Float32, float32_in_force, set_float32, without_tf32
from tests.conftest import ROOT

newer = pytest.mark.skipif(
    not hasattr(torch._C, "_get_fp32_precision_getter"), reason="PyTorch before 2.9 has one interface"
)
backends = torch.backends


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    if hasattr(torch._C, "_get_fp32_precision_getter"):
        backends.fp32_precision = "none"
    set_float32(tf32_matmul=False, tf32_convolution=True)


def meddle_newer() -> None:
    backends.fp32_precision = "tf32"
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.cudnn.conv.fp32_precision = "tf32"
    backends.mkldnn.matmul.fp32_precision = "bf16"


def meddle_older() -> None:
    torch.set_float32_matmul_precision("medium")
    backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize(("matmul", "convolution"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(
    "before", [lambda: None, meddle_older, pytest.param(meddle_newer, marks=newer)], ids=["nobody", "older", "newer"]
)
def test_what_is_set_is_in_force_by_both_interfaces(
    before: Callable[[], None], matmul: bool, convolution: bool
) -> None:
    before()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_float32(tf32_matmul=matmul, tf32_convolution=convolution)
        assert float32_in_force() == Float32(matmul, convolution, exact_cpu=True)
        assert backends.cuda.matmul.allow_tf32 is matmul  # raises where the interfaces disagree
        assert backends.cudnn.allow_tf32 is convolution
        assert torch.get_float32_matmul_precision() == ("high" if matmul else "highest")


def test_the_older_interface_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "_per_operation", lambda: False)
    for wanted in (Float32(True, False), Float32(False, True)):
        set_float32(tf32_matmul=wanted.tf32_matmul, tf32_convolution=wanted.tf32_convolution)
        assert float32_in_force() == wanted
        with without_tf32():
            assert float32_in_force() == Float32(False, False)
        assert float32_in_force() == wanted
    torch.set_float32_matmul_precision("medium")
    with without_tf32():
        assert float32_in_force().exact_cpu
    assert torch.get_float32_matmul_precision() == "medium"


@newer
def test_each_setting_is_found_again() -> None:
    meddle_newer()
    backends.cudnn.rnn.fp32_precision = "ieee"
    places = (
        backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv,
    )  # fmt: skip
    before = [place.fp32_precision for place in places]
    assert float32_in_force() == Float32(True, True, exact_cpu=False)
    with without_tf32():
        assert float32_in_force() == Float32(False, False, exact_cpu=True)
        assert not {place.fp32_precision for place in places} & {"tf32", "bf16"}
    assert [place.fp32_precision for place in places] == before


_UNTOUCHED = """
import torch
from revbench.devices.float32 import float32_in_force, without_tf32

def found():
    names = ["matmul", "conv", "rnn"]
    newer = [torch._C._get_fp32_precision_getter(b, n) for b in ("cuda", "mkldnn") for n in names] if hasattr(
        torch._C, "_get_fp32_precision_getter") else []
    older = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    return float32_in_force(), older, newer

before = found()
with without_tf32():
    assert not any(float32_in_force()[:2])
assert found() == before, (before, found())
assert torch.backends.cudnn.allow_tf32  # PyTorch's own choice
"""


def test_a_process_in_which_nobody_set_anything_is_as_before() -> None:
    subprocess.run([sys.executable, "-c", _UNTOUCHED], cwd=ROOT, check=True, timeout=120)
