"""What the documents promise is what there is."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from revbench.case import Case
from revbench.checkup.declared import CHECKS
from revbench.choices import ALL_STRATEGIES, STATUSES
from revbench.cli import app
from revbench.paper.catalogue import CATALOGUE
from revbench.probes.reference import reference_of, summary_of
from revbench.pytest_plugin.options import REFUSED
from revbench.report.build import machines_side_by_side
from revbench.report.render.markdown import section_lines
from revbench.results.runs import read_run
from revbench.runner.registry import OURS
from tests.conftest import ROOT, run_command

README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_the_readme_begins_with_the_two_commands_that_ci_runs() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks[0].rstrip().endswith(".venv/bin/python -m pytest --benchmark")
    assert blocks[1].rstrip().endswith(".venv/bin/python -m pytest -n 2 --dist loadfile")
    for block in blocks[:2]:
        assert block.startswith("python3 -m venv .venv && ")
        assert len(block.splitlines()) == 1
    awk = next(line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "awk" in line).strip()
    program = re.search(r"'(.*)'", awk)
    assert program is not None
    for number, block in enumerate(blocks[:2], 1):
        command = ["awk", "-v", f"want={number}", program.group(1), "README.md"]
        assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == block


def test_the_readmes_example_runs() -> None:
    (example,) = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "revbench.reversible" in b]
    namespace: dict[str, object] = {}
    exec(example, namespace)
    assert namespace["chain"].strategy == "stored"  # type: ignore[attr-defined]


def test_the_doctors_example_runs() -> None:
    how_to = (ROOT / "docs" / "how-to.md").read_text()
    (section,) = re.findall(r"## Ask the doctor about your network(.*?)\n## ", how_to, re.DOTALL)
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    namespace: dict[str, object] = {"__name__": "__main__"}  # of a notebook, say: it goes to the worker by value
    exec(example, namespace)
    namespace["test_my_network"]()  # type: ignore[operator]


def test_the_example_of_checkpointing_runs() -> None:
    how_to = (ROOT / "docs" / "how-to.md").read_text()
    (section,) = re.findall(r"## Checkpoint any list of blocks(.*?)\n## ", how_to, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0], namespace)


def test_the_reference_has_every_check() -> None:
    for check in CHECKS.values():
        assert f"| `{check.name}` | {check.question} |" in REFERENCE


def test_the_examples_of_couplings_run() -> None:
    how_to = (ROOT / "docs" / "how-to.md").read_text()
    (section,) = re.findall(r"## Put functions together in another way(.*?)\n## ", how_to, re.DOTALL)
    namespace: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(example, namespace)
    for name in ("three", "midpoint", "damped"):
        chain = namespace[name]
        assert all(p.grad is not None for p in chain.parameters())  # type: ignore[attr-defined]


def test_the_example_of_arguments_runs() -> None:
    (example,) = re.findall(
        r"## Hand masks and contexts.*?```python\n(.*?)```", (ROOT / "docs" / "how-to.md").read_text(), re.DOTALL
    )
    namespace: dict[str, object] = {}
    exec(example, namespace)
    assert namespace["context"].grad is not None  # type: ignore[attr-defined]


def test_every_test_that_what_works_names_is_there() -> None:
    text = (ROOT / "docs" / "compared.md").read_text()
    named = re.findall(r"`(?:tests/backprop/)?(test_\w+\.py)(?:::(?:Test\w+::)?(test_\w+))?", text)
    assert len(named) > 40
    for file, name in named:
        source = (ROOT / "tests" / "backprop" / file).read_text()
        assert f"def {name}(" in source or not name, (file, name)


def test_the_guards_of_the_how_to_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to.md").read_text(), re.DOTALL)
    guards = [block for block in blocks if "revbench_drift" in block]
    assert len(guards) == 2
    for number, block in enumerate(guards):
        (tmp_path / f"test_{number}.py").write_text(block)
    done = run_command("-q", "-s", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert "safe: no training would see it" in done.stdout


@pytest.mark.parametrize(
    "word",
    [
        *ALL_STRATEGIES,
        *STATUSES,
        *(n.replace("--benchmark", "") for n in REFUSED),
    ],
)
def test_the_reference_names(word: str) -> None:
    assert word in REFERENCE


def options() -> Iterator[tuple[str, str]]:
    """Each option of each command, and pytest's."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield name, max(parameter.opts, key=len)
    for line in run_command("--help", cwd=ROOT).stdout.splitlines():
        if match := re.match(r"  (--revbench-[\w-]+)", line):
            yield "pytest", match[1]


def test_the_reference_has_every_option() -> None:
    missing = []
    for command, option in options():
        section = re.search(rf"^### `revbench {command}`\n(.*?)(?=^##)", REFERENCE, re.MULTILINE | re.DOTALL)
        if not re.search(rf"`{option}[` ]", section[1] if section else REFERENCE):
            missing.append((command, option))
    assert missing == []


def test_the_reference_has_the_declarations() -> None:
    """`revbench probes --markdown > docs/probes.md` makes the page of the probes."""
    assert summary_of(OURS.values()) in REFERENCE
    assert reference_of(OURS.values()) == (ROOT / "docs" / "probes.md").read_text()
    for field in dataclasses.fields(Case):
        default = "–" if field.default is dataclasses.MISSING else f"`{field.default}`"
        assert f"| `{field.name}` | {field.metadata['about']} | {default} |" in REFERENCE


def test_the_tests_that_the_comparison_names_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)(?:::([\w:]+))?`", (ROOT / "docs" / "compared.md").read_text())
    assert len(named) > 15
    for file, path in named:
        text = (ROOT / "tests" / "backprop" / file).read_text()
        for name in filter(None, path.split("::")):
            assert re.search(rf"(def|class) {name}\b", text), (file, name)


DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "reports" / "reference" / "README.md",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = document.parent / file if file else document
        assert target.exists(), file
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in [anchor_of(h) for h in headings], (file, heading)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_files_that_are_named_are_there(document: Path) -> None:
    named = re.findall(r"`((?:docs|reports|revbench|suites|tests)/[\w/.-]+?)(?:::[^`]*)?`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def anchor_of(heading: str) -> str:
    """Returns the anchor that Markdown renderers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_index_has_every_reference_run() -> None:
    reference = ROOT / "reports" / "reference"
    index = (reference / "README.md").read_text()
    runs = [folder.relative_to(reference).as_posix() for folder in reference.glob("*/*/") if folder.is_dir()]
    assert runs
    assert [run for run in runs if f"({run}/report.md)" not in index] == []


def times_networks(folder: Path) -> bool:
    rows = (row for row in read_run(folder).rows if row.ok and row.probe == "time")
    return any(row.case.model in CATALOGUE and not row.case.memory_limit_bytes and not row.case.depth for row in rows)


def test_the_page_of_machines_is_made_of_all_reference_runs_that_can_stand_side_by_side() -> None:
    """By the command that the index gives; all runs in which networks of the catalogue were timed."""
    reference = ROOT / "reports" / "reference"
    (command,) = re.findall(
        r"^revbench (compare --hardware .*?)--output docs$", (reference / "README.md").read_text(), re.M | re.S
    )
    words = shlex.split(command.replace("\\\n", " "))[2:]
    names = [words[i + 1] for i, word in enumerate(words) if word == "--name"]
    folders = [ROOT / word for word, before in zip(words, ["", *words], strict=False) if "--name" not in (word, before)]
    timed = {folder for folder in reference.glob("*/*") if times_networks(folder)}
    assert set(folders) == timed
    given = {ROOT / path: name for name, _, path in (one.partition("=") for one in names)}
    section = machines_side_by_side(folders, names=given)
    page = (ROOT / "docs" / "machines.md").read_text()
    assert page.startswith("\n".join(section_lines(section, level=1)))
    for picture in re.findall(r"\]\((figures/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_the_headlines_of_the_index_are_those_of_the_runs() -> None:
    reference = ROOT / "reports" / "reference"
    lines = re.findall(
        r"^\| \[[^]]+\]\((.+?/report\.md)\) \|[^|]+\|([^|]+)\|", (reference / "README.md").read_text(), re.M
    )
    assert len(lines) == len(list(reference.glob("*/*")))
    for link, headline in lines:
        report = (reference / link).read_text()
        numbers = re.findall(r"\d+\.\d+(?:e-\d+)?", headline)
        assert numbers
        assert [
            number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", report)
        ] == [], link
