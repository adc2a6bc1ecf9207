"""A GPU that is there and can't be used is said, with the mend, before anything is measured on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from revbench.errors import UserError
from revbench.probes import nvml
from revbench.results.journal import Journal
from revbench.runner import unused_gpu
from revbench.runner.environment import lines_of
from revbench.runner.session import Session, check_device
from revbench.runner.unused_gpu import why_no_gpu
from tests.results.rows import ACCELERATOR, ENVIRONMENT

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


def refuse(words: str) -> Callable[[], None]:
    def init() -> None:
        raise RuntimeError(words)

    return init


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse("Found no NVIDIA driver on your system."))
    monkeypatch.setattr(unused_gpu, "_PCI", tmp_path)
    for name in ("_WSL", "_ROCM"):
        monkeypatch.setattr(unused_gpu, name, tmp_path / "absent")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def driver_sees(monkeypatch: pytest.MonkeyPatch, *names: str, problem: str | None = None) -> None:
    monkeypatch.setattr(nvml, "gpus_of_driver", lambda: (list(names), problem))


def slot(folder: Path, name: str, vendor: str, kind: str) -> None:
    (folder / name).mkdir()
    (folder / name / "vendor").write_text(f"{vendor}\n")
    (folder / name / "class").write_text(f"{kind}\n")


def test_a_gpu_that_works_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    driver_sees(monkeypatch, "NVIDIA H100")
    assert why_no_gpu() is None


def test_a_machine_without_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver_sees(monkeypatch)
    slot(tmp_path, "0000:00:02.0", "0x8086", "0x030000")  # somebody else's
    slot(tmp_path, "0000:00:03.0", "0x10de", "0x040300")  # NVIDIA's, for sound
    (tmp_path / "0000:00:04.0").mkdir()  # which nobody may read
    monkeypatch.setattr(unused_gpu, "_another_kind", lambda: None)
    assert why_no_gpu() is None


def test_a_build_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver_sees(monkeypatch, "NVIDIA H100", "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", None)
    said = str(why_no_gpu())
    assert said.startswith("this machine has NVIDIA H100, but PyTorch can't use it: PyTorch 2.")
    assert "is built without CUDA; install a build with it" in said


def test_a_container_that_was_not_given_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver_sees(monkeypatch)
    slot(tmp_path, "0000:01:00.0", "0x10de", "0x030200")
    assert "start the container with `--gpus all`" in str(why_no_gpu())


@pytest.mark.parametrize("value", ["", "-1", "1", "MIG-gone", "NoDevFiles"])
def test_a_variable_that_hides_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    driver_sees(monkeypatch, "NVIDIA H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    monkeypatch.setattr(torch.cuda, "init", refuse("No CUDA GPUs are available"))
    assert f"CUDA_VISIBLE_DEVICES={value!r} leaves none of them visible; unset it" in str(why_no_gpu())


@pytest.mark.parametrize("how", ["raised", "warned", "warned when asked"])
@pytest.mark.parametrize("visible", [True, False], ids=["variable", "no variable"])
def test_what_cuda_itself_says(monkeypatch: pytest.MonkeyPatch, how: str, visible: bool) -> None:
    """Also where no driver is seen, in a container that shows neither PCI nor NVML."""
    driver_sees(monkeypatch)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    def warn(*_: object) -> bool:
        warnings.warn(f"{TOO_OLD}\nand more", UserWarning, stacklevel=2)
        return False

    if how == "warned when asked":
        monkeypatch.setattr(torch.cuda, "is_available", warn)
    elif how == "warned":
        monkeypatch.setattr(torch.cuda, "init", lambda: warn() or refuse("No CUDA GPUs are available")())
    else:
        monkeypatch.setattr(torch.cuda, "init", refuse(TOO_OLD))
    said = str(why_no_gpu())
    assert said.startswith(
        f"this machine has an NVIDIA GPU, but PyTorch can't use it: {TOO_OLD} (PyTorch is built for CUDA 13.0;"
    )
    assert "\n" not in said


def test_a_driver_that_was_exchanged_wants_a_reboot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver_sees(monkeypatch, problem="Driver/library version mismatch")
    slot(tmp_path, "0000:01:00.0", "0x10de", "0x030200")
    assert "its driver does not answer (Driver/library version mismatch); reboot" in str(why_no_gpu())


def test_a_driver_that_sees_what_cuda_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    driver_sees(monkeypatch, "NVIDIA H100")
    assert "CUDA 13.0 finds no device; are /dev/nvidia* there" in str(why_no_gpu())


def test_wsl2_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver_sees(monkeypatch)
    monkeypatch.setattr(unused_gpu, "_WSL", tmp_path)
    assert "an NVIDIA GPU, but PyTorch can't use it: its driver does not reach this process" in str(why_no_gpu())


def test_rocm_that_may_not_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver_sees(monkeypatch)
    monkeypatch.setattr(unused_gpu, "_ROCM", tmp_path)
    assert "this PyTorch is not built for ROCm" in str(why_no_gpu())
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "init", refuse("No CUDA GPUs are available"))  # PyTorch says so of HIP, too
    assert "groups render and video" in str(why_no_gpu())


def test_a_gpu_that_this_build_has_no_kernels_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is used, since nobody knows which operations work, and what PyTorch says stands first."""

    def init() -> None:
        warnings.warn("Found GPU0 which is of compute capability 7.0.\nThe minimum is 7.5", UserWarning, stacklevel=2)

    monkeypatch.setattr(torch.cuda, "init", init)
    said = str(unused_gpu.warnings_of_gpus())
    assert said == "Found GPU0 which is of compute capability 7.0."
    environment = {**ENVIRONMENT, "accelerators": [ACCELERATOR], "gpu_warning": said}
    journal = Journal(tmp_path / "run")
    assert Session(journal, None, environment).notes == [said]  # type: ignore[arg-type]
    assert Session(journal, None, environment, device="cpu").notes == []  # type: ignore[arg-type]
    journal.close()
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert unused_gpu.warnings_of_gpus() is None


def test_accelerators_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    driver_sees(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "an Apple GPU, which revbench does not measure on" in str(why_no_gpu())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if hasattr(torch, "xpu"):
        monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
        assert "an Intel GPU" in str(why_no_gpu())


def test_it_is_said_first_and_as_the_reason(tmp_path: Path) -> None:
    why = "this machine has A GPU, but PyTorch can't use it: its driver is too old"
    environment: dict[str, Any] = {**ENVIRONMENT, "unused_gpu": why}
    with pytest.raises(UserError, match=f"device 'cuda' is not there: {why}; use cpu"):
        check_device("cuda", environment)
    assert any(line.split() == ["accelerators", "none:", *why.split()] for line in lines_of(environment))
    journal = Journal(tmp_path)
    session = Session(journal, None, environment)  # type: ignore[arg-type]
    assert session.notes == [f"{why}. The CPU is measured."]
    assert Session(journal, None, ENVIRONMENT).notes == []  # type: ignore[arg-type]
    journal.close()
