"""What is said of GPUs without one."""

from __future__ import annotations

import pytest
import torch

from revbench.devices import gpus
from revbench.errors import UserError


def test_the_runtime_counts_and_not_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """With MIG `torch.cuda.device_count` says how many cards there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 1, raising=False)
    assert gpus.usable_gpus() == 1
    with pytest.raises(UserError, match=r"device 'cuda:3' is not there: PyTorch finds cuda:0 alone"):
        gpus.index_of("cuda:3")
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 2, raising=False)
    assert [gpus.index_of("cuda"), gpus.index_of("cuda:1")] == [0, 1]
    with pytest.raises(UserError, match="PyTorch finds cuda:0 to cuda:1"):
        gpus.index_of("cuda:2")


def test_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus.usable_gpus() == 0
    with pytest.raises(UserError, match="PyTorch finds no CUDA device; use cpu"):
        gpus.index_of("cuda")


def test_arithmetic_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not gpus.has_bfloat16()
    assert asked == [False]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 4))
    monkeypatch.setattr(torch.version, "hip", None)
    assert gpus.has_tf32()
    monkeypatch.setattr(torch.version, "hip", "6.4")  # of another maker, which counts its own capabilities
    assert not gpus.has_tf32()
