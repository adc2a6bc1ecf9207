"""A GPU that is there and can't be used is said, with the mend, before anything is measured on the CPU."""

from __future__ import annotations

import warnings
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
from tests.results.rows import ENVIRONMENT

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(unused_gpu, "_PCI", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def driver_sees(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(nvml, "names_of_gpus", lambda: list(names))


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


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_variable_that_hides_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    driver_sees(monkeypatch, "NVIDIA H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert "CUDA_VISIBLE_DEVICES hides it; unset that" in str(why_no_gpu())


@pytest.mark.parametrize("how", ["raises", "warns", "nothing"])
def test_what_cuda_itself_says(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    driver_sees(monkeypatch, "NVIDIA H100")

    def init() -> None:
        if how == "warns":
            warnings.warn(f"{TOO_OLD}\nand more", UserWarning, stacklevel=2)
        if how != "nothing":
            raise RuntimeError(TOO_OLD if how == "raises" else "No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "init", init)
    said = str(why_no_gpu())
    assert (TOO_OLD in said) == (how != "nothing")
    assert "PyTorch is built for CUDA 13.0; `nvidia-smi` says which the driver can" in said
    assert "\n" not in said


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
