"""What machines are called, and what makes them unlike."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import revbench
from revbench.case import Case
from revbench.probes.declared import TIME
from revbench.report.evidence import Evidence
from revbench.results.machines import environments_alike, names_of, plain_name, processor_of, traits_of, unlike
from revbench.results.runs import read_run
from tests.results.rows import ACCELERATOR, ENVIRONMENT, make_row, write_run

GPU: dict[str, Any] = {**ACCELERATOR, "name": "NVIDIA H100 80GB HBM3", "power_limit_watts": 700.0}
WITH_GPU: dict[str, Any] = {
    **ENVIRONMENT, "environment_id": "00000000aaaa", "accelerators": [GPU, {**GPU, "uuid": "GPU-2"}],
    "gpu_settings": {"allocator": "native"},
}  # fmt: skip
WITH_GPU["torch"] = {**ENVIRONMENT["torch"], "cuda": "12.8"}
WITH_GPU["packages"] = {**ENVIRONMENT["packages"], "torch": "2.11.0"}


def changed(environment: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(environment)
    *parents, last = path.split(".")
    place: Any = found
    for parent in parents:
        place = place[int(parent)] if parent.isdigit() else place[parent]
    place[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "trait"),
    [
        ("cpu.capability", "AVX512", "CPU capability"), ("cpu.usable_cores", 64, "cores"), ("cpu.model", "other", "CPU"),
        ("packages.torch", "2.14.1", "PyTorch"), ("torch.threads", 1, "threads"), ("torch.cuda", "13.0", "CUDA"),
        ("accelerators.0.driver", "535", "driver"), ("accelerators.0.power_limit_watts", 350.0, "power limit"),
        ("accelerators.0.name", "NVIDIA H200", "GPU"), ("gpu_settings.allocator", "cudaMallocAsync", "GPU settings"),
    ],
)  # fmt: skip
def test_what_makes_times_unlike_is_named(path: str, value: object, trait: str) -> None:
    one, other = (traits_of(e, ["cuda"]) for e in (WITH_GPU, changed(WITH_GPU, path, value)))
    assert list(unlike(one, other)) == [trait]
    if trait not in ("GPU", "driver", "power limit", "CUDA", "GPU settings"):
        assert list(unlike(traits_of(WITH_GPU, ["cpu"]), traits_of(changed(WITH_GPU, path, value), ["cpu"]))) == [trait]


@pytest.mark.parametrize(
    ("path", "value"),
    [("environment_id", "x"), ("accelerators.0.uuid", "GPU-9"), ("system", "Linux, another"), ("memory_bytes", 1)],
)
def test_two_of_a_kind_are_alike(path: str, value: object) -> None:
    assert not unlike(traits_of(WITH_GPU, ["cuda"]), traits_of(changed(WITH_GPU, path, value), ["cuda"]))
    assert not unlike(traits_of(WITH_GPU, ["cuda:0"]), traits_of(WITH_GPU, ["cuda:1"]))


def test_what_a_run_does_not_tell_is_no_difference() -> None:
    newer = changed(changed(WITH_GPU, "cpu.revision", "family 25"), "torch.build", "abc")
    assert not unlike(traits_of(WITH_GPU, ["cuda"]), traits_of(newer, ["cuda"]))
    assert unlike(traits_of(newer, ["cuda"]), traits_of(changed(newer, "torch.build", "def"), ["cuda"]))
    assert unlike(traits_of(WITH_GPU, ["cpu"]), traits_of(WITH_GPU, ["cuda"])) == {"GPU": ("none", GPU["name"])}


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 80GB"), ("NVIDIA GeForce RTX 3060", "GeForce RTX 3060"), ("Tesla T4", "Tesla T4"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"), ("AMD EPYC", "AMD EPYC"), ("NVIDIA", "NVIDIA"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "Intel Core i7-9750H"), ("Apple M2", "Apple M2"),
    ],
)  # fmt: skip
def test_names_lose_their_ornaments(model: str, plain: str) -> None:
    assert plain_name(model) == plain


def test_names_are_never_the_same() -> None:
    slow = changed(WITH_GPU, "accelerators.0.power_limit_watts", 350.0)
    machines = [(WITH_GPU, ["cuda"]), (slow, ["cuda"]), (WITH_GPU, ["cpu"]), (WITH_GPU, ["cuda"])]
    assert names_of(machines, ["a", "b", "c", "d"]) == [
        "H100 80GB, torch 2.11, 700 W (a)", "H100 80GB, torch 2.11, 350 W", "A <b>CPU</b>, 2 cores, torch 2.11",
        "H100 80GB, torch 2.11, 700 W (d)",
    ]  # fmt: skip


def test_the_processor_is_what_chooses_kernels() -> None:
    assert processor_of(WITH_GPU, "cuda:1") == "NVIDIA H100 80GB HBM3"
    assert processor_of(WITH_GPU, "cpu") == "A <b>CPU</b>, AVX2"
    assert processor_of(ENVIRONMENT, "cuda") == "an unknown GPU"


def test_rows_of_like_machines_are_one_evidence(tmp_path: Path) -> None:
    """A shard each on two GPUs of one kind; a third machine is another."""
    twin = {**changed(WITH_GPU, "accelerators.0.uuid", "GPU-9"), "environment_id": "00000000bbbb"}
    slow = {**changed(WITH_GPU, "packages.torch", "2.6.0"), "environment_id": "00000000cccc"}
    case = Case(model="revnet-38", device="cuda")
    rows = [make_row(case=case, environment_id=e["environment_id"]) for e in (WITH_GPU, twin, slow)]
    folder = write_run(tmp_path / "run", *rows, environment=WITH_GPU)
    lines = (folder / "rows.jsonl").read_text().splitlines()

    lines[1:1] = [json.dumps({"kind": "environment", **e}) for e in (twin, slow)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    run = read_run(folder)
    groups = environments_alike(run)
    assert groups == [["00000000aaaa", "00000000bbbb"], ["00000000cccc"]]
    assert len(Evidence(run, *groups[0]).launches(case, TIME)) == 2
    frame = revbench.load_runs(folder)
    assert list(frame.machine) == ["H100 80GB, torch 2.11"] * 2 + ["H100 80GB, torch 2.6"]
    assert set(frame.gpu) == {"NVIDIA H100 80GB HBM3"}
    assert list(frame.torch) == ["2.11.0", "2.11.0", "2.6.0"]


def test_a_frame_never_mixes_machines(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", make_row())
    slow = {**changed(ENVIRONMENT, "cpu.capability", "DEFAULT"), "environment_id": "00000000dddd"}
    two = write_run(tmp_path / "two", make_row(environment_id="00000000dddd"), environment=slow)
    for frame in (revbench.load_runs(one, two), revbench.load_runs([one, two])):
        assert list(frame.machine) == [
            "A <b>CPU</b>, 2 cores, torch 2.6, AVX2",
            "A <b>CPU</b>, 2 cores, torch 2.6, DEFAULT",
        ]
        assert frame.gpu.isna().all()
