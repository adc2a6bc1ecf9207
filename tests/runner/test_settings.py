"""A row never claims a setting that was not in force."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from revbench.case import Case
from revbench.devices.float32 import float32_in_force, set_float32
from revbench.errors import UserError
from revbench.probes.nvml import Gpu
from revbench.runner.client import WorkerServer
from revbench.runner.settings import Settings
from revbench.runner.worker import first_checked
from tests.conftest import ROOT
from tests.devices.test_float32 import newer
from tests.probes.test_nvml import UUID, FakeNvml

MEDDLERS = "tests.runner.meddlers"
SHORT = {"min_rounds": 1, "warmup_rounds": 1, "max_seconds": 0.0}


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_network_that_sets_things_when_it_is_built(server: WorkerServer, threads: int) -> None:
    found = server.measure([Case(model=f"{MEDDLERS}:network", batch_size=2, threads=threads)], "time", options=SHORT)
    assert found["status"] == "ok", found


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("benchmark", "set cudnn_benchmark to True while it ran, where the case says False"),
        ("products", "set tf32_matmul to True while it ran"),
        pytest.param("bfloat16", "set torch.backends.mkldnn's precision of float32 to less while it ran", marks=newer),
        ("threads", "set threads to 3 while it ran, where the case says 2"),
    ],
)
def test_a_network_that_sets_things_when_it_runs(server: WorkerServer, what: str, words: str) -> None:
    case = Case(model=f"{MEDDLERS}:later(what={what})", batch_size=2, threads=2)
    found = server.measure([case], "time", options=SHORT | {"warmup_rounds": 0})
    assert found["status"] == "crashed"
    assert words in found["message"]


def test_determinism_that_only_warns_is_none(server: WorkerServer) -> None:
    case = Case(model=f"{MEDDLERS}:later(what=warnings)", batch_size=2, deterministic=True)
    found = server.measure([case], "time", options=SHORT)
    assert "set deterministic to False while it ran, where the case says True" in found["message"]


def test_what_takes_long_is_looked_at_early(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    settings = Settings(Case(model="revnet-38", batch_size=2))
    monkeypatch.setattr(settings, "check", lambda: looked.append(len(sent)))
    sent: list[Any] = []
    progress = first_checked(settings, sent.append)
    for step in range(3):
        progress({"done": step})
    assert (looked, len(sent)) == ([0], 3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of a GPU that is not there, in order."""
    asked: list[Any] = []
    fake = FakeNvml(used=lambda: asked.append("read") or 700)  # type: ignore[func-returns-value]
    monkeypatch.setattr("revbench.devices.gpus.usable_gpus", lambda: 2)
    monkeypatch.setattr(Gpu, "of_torch", classmethod(lambda cls, index: cls(UUID, nvml=fake)))
    for name, answer in (
        ("set_device", lambda index: asked.append(("use", index))), ("current_device", lambda: 1),
        ("get_device_capability", lambda: (9, 0)),
        ("mem_get_info", lambda: (15 << 30, 16 << 30)), ("get_device_name", lambda: "A GPU"),
        ("get_device_properties", lambda index: SimpleNamespace(total_memory=16 << 30, uuid=UUID)),
        ("set_per_process_memory_fraction", lambda fraction: asked.append(("fraction", fraction))),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, answer)
    for variable in ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("revbench.runner.settings.set_malloc", lambda allocator: True)
    return asked


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, float32_in_force()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    set_float32(tf32_matmul=before[2].tf32_matmul, tf32_convolution=before[2].tf32_convolution)


def on_gpu(**fields: Any) -> Case:
    return Case(model="revnet-38", batch_size=2, device="cuda:1", **fields)


def test_what_is_in_use_is_read_before_the_gpu_is_used(gpu: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(on_gpu(memory_limit_bytes=16 << 30))
    settings.begin()
    assert gpu[:3] == ["read", ("use", 1), ("fraction", 1.0)]
    assert settings.device_before == (700, None)
    settings.check()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(RuntimeError, match="set the current CUDA device to 0 while it ran, where the case says 1"):
        settings.check()


@pytest.mark.parametrize("there", [None, ":16:8"])
def test_deterministic_products_have_their_workspace(
    gpu: list[Any], monkeypatch: pytest.MonkeyPatch, there: str | None
) -> None:
    """Without it PyTorch before 2.10 refuses them."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", there or "")
    if there is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    Settings(on_gpu()).begin()
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == there
    Settings(on_gpu(deterministic=True)).begin()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (there or ":4096:8")
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("value", "tf32"), [("0", True), ("1", False)])
def test_a_variable_that_overrides_tf32_is_refused(
    gpu: list[Any], monkeypatch: pytest.MonkeyPatch, value: str, tf32: bool
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    with pytest.raises(UserError, match=f"NVIDIA_TF32_OVERRIDE={value} overrides what the case says of TF32; unset it"):
        Settings(on_gpu(tf32_matmul=tf32, tf32_convolution=tf32)).begin()
    Settings(on_gpu(tf32_matmul=not tf32, tf32_convolution=not tf32)).begin()
    assert float32_in_force().tf32_matmul is not tf32


def test_bfloat16_that_is_only_emulated_is_unsupported(gpu: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(NotImplementedError, match="A GPU has no bfloat16 arithmetic"):
        Settings(on_gpu(autocast="bfloat16")).begin()


def test_pinned_malloc_takes_fewer_page_faults(server: WorkerServer) -> None:
    """The setting is made in the forked worker, and means the same whatever its server freed before."""
    faults = {}
    for allocator in ("default", "pinned"):
        subject = Case(model="resnet-32", batch_size=32, allocator=allocator)
        row = server.measure([subject], "time", options={"min_rounds": 3, "max_seconds": 0.0})
        faults[allocator] = row["measurements"][0]["metrics"]["minor_faults_per_step"]
    assert faults["pinned"] < 0.2 * faults["default"], faults


_FAULTS_OF_MALLOC = """
import ctypes, resource
from revbench.runner.settings import set_malloc
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = libc.malloc(4 << 20)
        libc.memset(block, 1, 4 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert set_malloc("default")
first = faults()
libc.free(libc.malloc(24 << 20))  # glibc by itself would raise its threshold to this size, and keep the next blocks
after_a_large_one = faults()
assert set_malloc("pinned")
faults()
print(first, after_a_large_one, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_default_malloc_means_the_same_after_a_large_block_was_freed() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _FAULTS_OF_MALLOC], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, after_a_large_one, pinned = map(int, found.stdout.split())
    assert first >= 20, "each block is taken from the system anew"  # how many pages one is depends on huge pages
    assert after_a_large_one >= 0.9 * first
    assert pinned < 0.05 * first
