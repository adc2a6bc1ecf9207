"""What the doctor finds in packages of others: the page is what was found, and what was found is found again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from revbench.case import Case
from revbench.checkup.declared import CHECKS, VERDICTS
from revbench.errors import UserError
from revbench.workload import build_workload

DOCS = Path(__file__).parents[1] / "docs"


def script() -> Any:
    specification = importlib.util.spec_from_file_location("zoo_page", DOCS / "zoo.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


ZOO = script()
FOUND: dict[str, Any] = json.loads((DOCS / "zoo.json").read_text())["networks"]

# What was seen by hand before there was a doctor, by the check that must find it.
SEEN = {
    "dropout": [
        "memcnn",
        "RevTorch",
        "PyG GroupAddRev",
        "pytorchcv RevNet",
        "momentumnet",
        "transformers Reformer",
        "torch budget",
    ],
    "shared_input": ["memcnn", "PyG GroupAddRev"],
    "readable": ["PyG GroupAddRev"],
    "buffers": [
        "memcnn",
        "RevTorch",
        "revlib",
        "PyG GroupAddRev",
        "pytorchcv RevNet",
        "momentumnet",
        "torch nonreentrant",
    ],
    "memory": ["pytorchcv RevNet"],
    "frozen": ["pytorchcv RevNet"],
    "depth": ["momentumnet"],
    "parameter_hooks": ["memcnn", "pytorchcv RevNet", "momentumnet"],
    "input_without_gradient": ["reformer-pytorch", "RevTorch", "revlib"],
}


def test_the_page_is_what_was_found() -> None:
    assert (DOCS / "zoo.md").read_text() == ZOO.page({"networks": FOUND})


def test_every_network_has_every_check() -> None:
    assert list(FOUND) == [column.title for column in ZOO.COLUMNS]
    for one in FOUND.values():
        assert list(one["findings"]) == list(CHECKS)
        assert all(verdict in VERDICTS for verdict, _ in one["findings"].values())
    assert len({one["package"] for one in FOUND.values()} - {"revbench", "torch"}) >= 8


@pytest.mark.parametrize("name", SEEN)
def test_what_was_seen_by_hand_is_found(name: str) -> None:
    assert {title: FOUND[title]["findings"][name][0] for title in SEEN[name]} == dict.fromkeys(SEEN[name], "failed")


def test_none_is_found_in_ours() -> None:
    assert [words for verdict, words in FOUND["revbench"]["findings"].values() if verdict == "failed"] == []


@pytest.mark.filterwarnings("ignore")  # of what they call of PyTorch
@pytest.mark.parametrize("column", ZOO.COLUMNS, ids=lambda column: column.title)
def test_a_network_of_the_zoo_takes_a_step(column: Any) -> None:
    if ZOO.installed(column.package) is None:
        pytest.skip(f"{column.package} is not installed; it is of the extra zoo")
    if column.model.endswith("(way=budget)"):
        pytest.skip("it is compiled, which takes a minute; the slow test does it")
    built = build_workload(Case(model=column.model, batch_size=3))
    built.step(*built.batch())
    assert any(p.grad is not None for p in built.model.parameters())


def test_a_package_that_is_not_there_is_one_line() -> None:
    if ZOO.installed("FrEIA") is not None:
        pytest.skip("FrEIA is installed")
    with pytest.raises(UserError, match=r"FrEIA\.framework can't be imported .* of the extra zoo"):
        build_workload(Case(model="revbench.zoo:freia"))


@pytest.mark.slow
@pytest.mark.parametrize("column", ZOO.COLUMNS, ids=lambda column: column.title)
def test_what_was_found_is_found_again(column: Any) -> None:
    from revbench.launch.doctor import examine

    there, before = ZOO.installed(column.package), FOUND[column.title]
    if there != before["version"]:
        pytest.skip(f"{column.package} {before['version']} was examined; here is {there or 'none'}")
    verdicts = {finding.check: finding.verdict for finding in examine(column.model).findings}
    assert verdicts == {name: verdict for name, (verdict, _) in before["findings"].items()}
