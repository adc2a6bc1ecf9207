"""Machines side by side: one comparison first, then each machine's own part."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from revbench.errors import UserError
from revbench.report.build import build_report
from revbench.report.document import Figure, Report, Table
from revbench.report.render.html import render_html
from revbench.report.render.markdown import render_markdown
from tests.conftest import Cli
from tests.report.reports import BASE, memory, tables, timed_row
from tests.results.rows import ACCELERATOR, ENVIRONMENT, make_row, write_run

OURS = BASE.replace(strategy="reconstructed")


def machine(name: str, **changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(ENVIRONMENT)
    found["environment_id"] = name
    found["cpu"]["model"] = changes.get("model", "AMD EPYC")
    found["cpu"]["capability"] = changes.get("capability", "AVX2")
    found["accelerators"] = changes.get("accelerators", [])
    return found


def run_on(
    folder: Path, environment: dict[str, Any], factor: float, *, device: str = "cpu", batch_size: int = 16
) -> Path:
    key = environment["environment_id"]
    rows = []
    for case, seconds, size in ((BASE, 0.2, 8 << 20), (OURS, 0.3, 2 << 20)):
        case = case.replace(device=device, batch_size=batch_size)
        rows += [timed_row(case, seconds * factor, repeat=i, environment_id=key) for i in range(1, 4)]
        rows.append(make_row(case=case, probe="memory", metrics=memory(size), samples={}, environment_id=key))
    return write_run(folder, *rows, environment=environment)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    gpu = {**ACCELERATOR, "name": "NVIDIA H100 80GB HBM3"}
    return [
        run_on(tmp_path / "slow", machine("00000000aaaa"), 1.0),
        run_on(tmp_path / "fast", machine("00000000bbbb", capability="AVX512"), 0.5),
        run_on(tmp_path / "gpu", machine("00000000cccc", accelerators=[gpu]), 0.01, device="cuda"),
        run_on(tmp_path / "large", machine("00000000dddd", model="Intel(R) Xeon(R) CPU @ 2.20GHz"), 2.0, batch_size=32),
    ]


def cells(report: Report, title: str, *columns: str) -> dict[tuple[str, str], list[str]]:
    table = tables(report)[title]
    at = [list(table.columns).index(column) for column in columns]
    return {(row[1], row[2]): [row[i] for i in at] for row in table.rows}


SLOW, FAST = "AMD EPYC, 2 cores, torch 2.6, AVX2", "AMD EPYC, 2 cores, torch 2.6, AVX512"
FAST_ALONE = "AMD EPYC, 2 cores, torch 2.6, AVX512"
GPU, LARGE = "H100 80GB, torch 2.6", "Intel Xeon, 2 cores, torch 2.6"


def test_the_comparison_stands_first_and_each_machine_has_its_part(folders: list[Path]) -> None:
    report = build_report(folders)
    assert report.sections[0].title == "Machines side by side"
    assert [name for name, _ in report.parts] == ["", SLOW, FAST, GPU, LARGE]
    assert all("Where it was measured" in [s.title for s in sections] for name, sections in report.parts if name)
    page = render_html(report)
    assert page.count("<details") == page.count("</details>")
    assert page.count('<details id="-p') == 4
    assert page.index("Machines side by side") < page.index("<details")
    contents = page[page.index("<nav") : page.index("</nav>")]
    assert contents.count("<a href") == 5  # of the comparison and of each machine
    text = render_markdown(report)
    assert f"\n## {SLOW}\n" in text
    assert "\n### Memory\n" in text


def test_machines_and_strategies_beside_a_chosen_one(folders: list[Path]) -> None:
    found = cells(
        build_report(folders, relative_to=FAST), "Time of machines and strategies",
        "Batch", "Step", "Items a second", "to reference", "Time to stored",
    )  # fmt: skip
    assert found[SLOW, "reconstructed"] == ["16", "300 ms", "53.3", "0.50 ×", "1.50 ×"]
    assert found[FAST, "stored"] == ["16", "100 ms", "160", "1.00 ×", "1.00 ×"]
    assert found[GPU, "reconstructed"] == ["16", "3.00 ms", "5,333", "50.00 ×", "1.50 ×"]
    assert found[LARGE, "stored"] == ["32", "400 ms", "80.0", "–", "1.00 ×"]  # another batch is another case
    saved = cells(
        build_report(folders), "Memory and gradient of machines and strategies", "Peak", "Activations to stored"
    )
    assert saved[GPU, "reconstructed"] == ["2.0 MiB", "0.25 ×"]


def test_the_pictures_show_every_machine(folders: list[Path]) -> None:
    (comparison, *_) = build_report(folders).sections
    pictures = {block.title: block for block in comparison.blocks if isinstance(block, Figure)}
    dots = pictures["Time against memory on each machine"].alternative
    costs = pictures["What reconstruction costs in time"].alternative
    for name in (SLOW, FAST, GPU, LARGE):
        assert f"{name}, reconstructed: 2 MiB" in dots
        assert f"RevNet-38 on {name} 1.50" in costs


def test_an_unstable_ratio_is_marked_and_not_drawn(tmp_path: Path, folders: list[Path]) -> None:
    noisy = timed_row(OURS, 0.3)
    wild = {**noisy.samples, "step_seconds": [0.1, 0.1, 0.3, 0.3, 0.9, 0.9, 0.2, 0.2, 0.3, 0.3, 0.8, 0.8]}
    key = "00000000eeee"
    rows = [timed_row(BASE, 0.2, environment_id=key), make_row(
        case=OURS, metrics=noisy.metrics, samples=wild, environment_id=key)]  # fmt: skip
    folder = write_run(tmp_path / "noisy", *rows, environment=machine(key, model="Noisy"))
    report = build_report([folders[0], folder])
    name = "Noisy, 2 cores, torch 2.6"
    (cost,) = cells(report, "Time of machines and strategies", "Time to stored")[name, "reconstructed"]
    assert cost.endswith(" †")
    (comparison, *_) = report.sections
    (costs,) = [
        b for b in comparison.blocks if isinstance(b, Figure) and b.title == "What reconstruction costs in time"
    ]
    assert name not in costs.alternative
    assert ">unstable<" in costs.svg or "unstable" in str(tables(report)["Time of machines and strategies"].notes)


def test_what_machines_differ_in_is_named(folders: list[Path]) -> None:
    table = tables(build_report(folders))["What the machines differ in"]
    assert isinstance(table, Table)
    rows = {row[0]: list(row[1:]) for row in table.rows}
    assert rows["CPU capability"] == ["AVX2", "AVX512", "AVX2", "AVX2"]
    assert rows["GPU"] == ["–", "–", "NVIDIA H100 80GB HBM3", "–"]
    assert "PyTorch" not in rows  # the same


def test_names_are_set_by_the_command(folders: list[Path], tmp_path: Path, cli: Cli) -> None:
    paths = [str(folder) for folder in folders[:2]]
    out = str(tmp_path / "out")
    code, _, err = cli("report", *paths, "--output", out, "--name", f"Old={paths[0]}", "--relative-to", "Old")
    assert (code, err) == (0, "")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "\n## Old\n" in text
    assert "Reference: Old;" in text
    for arguments, words in (
        (["--name", "Old"], "give NAME=RUN"),
        (["--name", f"Old={tmp_path / 'other'}"], "is none of the runs that are given"),
        (["--relative-to", "New"], "machine 'New'"),
        (["--name", f"={paths[0]}"], "give NAME=RUN"),
    ):
        code, _, err = cli("report", *paths, "--output", out, *arguments)
        assert code == 2
        assert words in err
    code, _, err = cli("report", paths[0], paths[0], "--output", out)
    assert code == 2
    assert "is given twice" in err


def test_a_run_twice_is_a_mistake(folders: list[Path]) -> None:
    with pytest.raises(UserError, match="given twice"):
        build_report([folders[0], folders[0] / ".." / folders[0].name])


def test_the_same_in_the_terminal(folders: list[Path], tmp_path: Path, cli: Cli) -> None:
    code, out, err = cli("compare", "--hardware", *map(str, folders), "--relative-to", FAST)
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert f"RevNet-38, {GPU}" in out
    assert "What the machines differ in" in out
    assert f"Reference: {FAST}" in " ".join(out.split())
    code, out, _ = cli("compare", "--hardware", *map(str, folders[:2]), "--name", f"old={folders[0]}", "--json")
    found = {table["title"]: table for table in json.loads(out)}
    assert {row[1] for row in found["Time of machines and strategies"]["rows"]} == {"old", FAST_ALONE}
    code, out, _ = cli("compare", "--hardware", *map(str, folders[:2]), "--markdown")
    assert out.startswith("## Machines side by side\n\n**Time of machines and strategies**")
    assert "![" not in out
    assert cli("compare", "--hardware", *map(str, folders), "--output", str(tmp_path / "page"))[0] == 0
    page = (tmp_path / "page" / "machines.md").read_text()
    assert page.startswith("# Machines side by side\n")
    pictures = re.findall(r"!\[[^]]+\]\((figures/[\w-]+\.svg)\)", page)
    assert len(pictures) == 2
    assert all((tmp_path / "page" / picture).is_file() for picture in pictures)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hardware", "--all"), "omit --fail-on and --all"),
        (("--hardware", "--fail-on", "peak_bytes > 3%"), "omit --fail-on and --all"),
        (("--relative-to", "A"), "give --hardware, too"),
        (("--output", "A"), "give --hardware, too"), (("--hardware", "--relative-to", "A"), "unknown machine 'A'"),
    ],
)  # fmt: skip
def test_mistakes_of_the_command(folders: list[Path], cli: Cli, options: tuple[str, ...], words: str) -> None:
    code, out, err = cli("compare", *map(str, folders[:2]), *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_runs_of_one_machine_are_no_hardware_comparison(tmp_path: Path, cli: Cli) -> None:
    both = [run_on(tmp_path / name, machine(f"00000000{name}"), 1.0) for name in ("aaaa", "bbbb")]
    code, _, err = cli("compare", "--hardware", *map(str, both))
    assert code == 2
    assert "all runs are of one machine, AMD EPYC, 2 cores, torch 2.6" in err
