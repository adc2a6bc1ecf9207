"""The fingerprint of a machine, and the line that a person reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from revbench.probes import nvml
from revbench.probes.nvml import Gpu
from revbench.results.runs import read_run
from revbench.runner.environment import describe_environment, lines_of, summarise
from tests.probes.test_nvml import UUID, FakeNvml
from tests.results.rows import ACCELERATOR, ENVIRONMENT, make_row, write_run


def test_two_gpus_of_a_kind_are_named_once_and_the_one_that_was_used_is_named() -> None:
    one, other = ACCELERATOR, {**ACCELERATOR, "name": "Another"}
    both: dict[str, Any] = {**ENVIRONMENT, "accelerators": [one, other]}
    assert summarise(both).startswith("A GPU; Another; A <b>CPU</b>, 2 cores; torch 2.6")
    assert summarise(both, ["cuda:1"]).startswith("Another; A <b>CPU</b>")
    assert summarise(both, ["cuda", "cpu"]).startswith("A GPU; A <b>CPU</b>")
    assert summarise(both, ["cpu"]).startswith("A <b>CPU</b>")
    assert summarise({**ENVIRONMENT, "accelerators": [one, one]}).count("A GPU") == 1


def test_what_decides_how_a_gpu_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    properties = SimpleNamespace(
        name="A GPU", uuid=UUID, total_memory=2**34, major=9, minor=0, multi_processor_count=132
    )
    fake = FakeNvml(mig=True)
    for name, answer in (
        ("is_available", lambda: True), ("init", lambda: None), ("get_device_properties", lambda index: properties),
        ("get_allocator_backend", lambda: "native"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 1, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    monkeypatch.setattr(Gpu, "of_torch", classmethod(lambda cls, index: cls(UUID, nvml=fake)))
    monkeypatch.setattr(nvml, "driver_version", lambda: "580.1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    found = describe_environment()
    (accelerator,) = found["accelerators"]
    assert accelerator["uuid"] == f"MIG-{UUID}"
    assert accelerator["power_limit_watts"] == 700
    settings = found["gpu_settings"]
    assert settings["NVIDIA_TF32_OVERRIDE"] == "0"
    assert settings["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    text = "\n".join(lines_of(found))
    assert "limit 700 W" in text
    assert "allocator native, PYTORCH_ALLOC_CONF expandable_segments:True, NVIDIA_TF32_OVERRIDE 0" in text
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert describe_environment()["environment_id"] != found["environment_id"]
    folder = write_run(tmp_path / "run", make_row(environment_id=found["environment_id"]), environment=found)
    assert read_run(folder).environments == {found["environment_id"]: found}  # a file holds it as it is
