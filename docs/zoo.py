"""Makes docs/zoo.md, the page of what the doctor finds in other packages: ``python docs/zoo.py`` examines those that are
installed and keeps what was found in docs/zoo.json; ``python docs/zoo.py --render`` only writes the page anew.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from revbench.checkup.declared import CHECKS
from revbench.terminal import say

HERE = Path(__file__).parent
PAGE, FOUND = HERE / "zoo.md", HERE / "zoo.json"
MARKS = {"passed": "✓", "failed": "**✗**", "can't tell": "·"}
RAISES = "raises "  # how the words of a failure begin that is loud


class Column(NamedTuple):
    """A network of the zoo.

    Attributes:
        title: the head of its column.
        package: as it is installed.
        model: as a case names it.
        home: where the package is developed.
    """

    title: str
    package: str
    model: str
    home: str


COLUMNS: Sequence[Column] = (
    Column("revbench", "revbench", "revbench.zoo:revbench", ""),
    Column("memcnn", "memcnn", "revbench.zoo:memcnn", "https://github.com/silvandeleemput/memcnn"),
    Column("memcnn, preserve_rng_state", "memcnn", "revbench.zoo:memcnn(preserve=True)", "https://github.com/silvandeleemput/memcnn"),
    Column("RevTorch", "revtorch", "revbench.zoo:revtorch", "https://github.com/RobinBruegger/RevTorch"),
    Column("RevTorch, fix_random_seed", "revtorch", "revbench.zoo:revtorch(fixed=True)", "https://github.com/RobinBruegger/RevTorch"),
    Column("revlib", "revlib", "revbench.zoo:revlib", "https://github.com/HomebrewNLP/revlib"),
    Column("pytorchcv RevNet", "pytorchcv", "revbench.zoo:pytorchcv", "https://github.com/osmr/pytorchcv"),
    Column("PyG GroupAddRev", "torch-geometric", "revbench.zoo:torch_geometric", "https://github.com/pyg-team/pytorch_geometric"),
    Column("momentumnet", "momentumnet", "revbench.zoo:momentumnet", "https://github.com/michaelsdr/momentumnet"),
    Column("iunets", "iunets", "revbench.zoo:iunets", "https://github.com/cetmann/iunets"),
    Column("reformer-pytorch", "reformer-pytorch", "revbench.zoo:reformer_pytorch", "https://github.com/lucidrains/reformer-pytorch"),
    Column("the same, hashing", "reformer-pytorch", "revbench.zoo:reformer_pytorch(lsh=True)", "https://github.com/lucidrains/reformer-pytorch"),
    Column("performer-pytorch", "performer-pytorch", "revbench.zoo:performer_pytorch", "https://github.com/lucidrains/performer-pytorch"),
    Column("transformers Reformer", "transformers", "revbench.zoo:transformers_reformer", "https://github.com/huggingface/transformers"),
    Column("the same, local", "transformers", "revbench.zoo:transformers_reformer(lsh=False)", "https://github.com/huggingface/transformers"),
    Column("FrEIA", "FrEIA", "revbench.zoo:freia", "https://github.com/vislearn/FrEIA"),
    *(
        Column(f"torch {way}", "torch", f"revbench.zoo:torch_recomputation(way={way})", "https://github.com/pytorch/pytorch")
        for way in ("nonreentrant", "reentrant", "selective", "budget", "offload")
    ),
)  # fmt: skip


# What is to be known of a network beside its marks.
NOTES: Mapping[str, str] = {
    "memcnn": "Its wrapper frees what a block is given (`keep_input=False`), as its documentation says, so nobody else may read"
    " that: a leaf, or a tensor that is used elsewhere, too. `preserve_rng_state`, the column beside it, is of its inverse alone;"
    " its documentation of autocast is of GPUs. Batch norm in both passes is discussed in [issue 12](https://github.com/silvandeleemput/memcnn/issues/12).",
    "RevTorch": "Masks: the column beside it; [issue 3](https://github.com/RobinBruegger/RevTorch/issues/3) asked for it.",
    "PyG GroupAddRev": "It frees what a block is given, likewise.",
    "iunets": "What is wrong is not the reversible part but the derivative of the Cayley transform, by which orthogonal matrices"
    " are made of weights, under stored activations as well. Q = (I + A)⁻¹ (I - A) has dQ = -(I + A)⁻¹ dA (I + Q); release 0.1"
    " returns something else, of the other sign at A = 0. The tensors that it reaches are left out of the other checks.",
    "performer-pytorch": "Its kernel takes the largest value of the keys out of the graph, so its gradient is not quite the"
    " derivative: 0.05 % off, and more where dropouts are planted, whose masks are the same in both passes.",
    "transformers Reformer": "The rotations by which it hashes are drawn in forward and not in backward, where buckets are taken"
    " from forward, so the masks that are drawn after them are others; with local attention alone they are the same. It keeps"
    " those buckets. `eval()` with gradient is refused on purpose.",
    "FrEIA": "It keeps its activations on purpose: its inverse is for densities, not for memory.",
    "torch budget": "Of a budget of 0, where masks are always drawn again. With a larger one the compiler chooses: at a tenth"
    " it kept this network's masks, and its gradient was right. PyTorch has the fault on its list: issues"
    " [190717](https://github.com/pytorch/pytorch/issues/190717) and [190758](https://github.com/pytorch/pytorch/issues/190758).",
    "torch nonreentrant": "A checkpoint keeps a state for each block, on purpose, and the other ways of PyTorch what they say.",
}


def installed(package: str) -> str | None:
    """Returns a package's version; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def examine_all(only: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what is found in every network whose package is installed; of the others what was found before."""
    from revbench.launch.doctor import examine

    before = json.loads(FOUND.read_text()) if FOUND.exists() else {"networks": {}}
    networks: dict[str, Any] = {}
    for column in COLUMNS:
        there = installed(column.package)
        if there is None or (only and column.title not in only):
            if column.title in before["networks"]:
                networks[column.title] = before["networks"][column.title]
            if there is None:
                say(f"{column.title}: {column.package} is not installed", sys.stderr)
            continue
        say(column.title, sys.stderr)
        examination = examine(column.model)
        networks[column.title] = {
            "package": column.package, "version": there, "torch": version("torch"), "model": column.model,
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "findings": {f.check: [f.verdict, f.words] for f in examination.findings},
        }  # fmt: skip
    return {"networks": networks}


def page(found: dict[str, Any]) -> str:
    """Returns the page."""
    networks: dict[str, Any] = found["networks"]
    homes = {column.title: column.home for column in COLUMNS}
    heads = " | ".join(networks)
    lines = [
        "# What the doctor finds",
        "",
        "`revbench doctor` on small networks of packages that others wrote, each used as its documentation says, at a version and"
        " on a date. We thank their authors: most of what is known of training reversible networks is in this code, and a mark"
        " here is about one use at one version, not about a package. Whoever finds one that is wrong or out of date: the command"
        " under the table repeats it.",
        "",
        "✓ passed, **✗** failed, *raises*: an error where plain autograd has none, which nobody can overlook, · can't be told."
        " What was seen of all but what passed stands below. All of it on a CPU: autocast is the CPU's bfloat16, and offloading"
        " moves nothing. Where functions are not the package's own they are plain layers with batch norm and dropout; where it"
        " brings networks without dropout (pytorchcv, iunets, the transformers) dropouts are planted behind their layers.",
        "",
        f"| check | {heads} |",
        "|---" * (1 + len(networks)) + "|",
    ]
    for name in CHECKS:
        cells = (_mark(*networks[title]["findings"][name]) for title in networks)
        lines.append(f"| [{name}](#{name}) | {' | '.join(cells)} |")
    lines += ["", "| network | package | version | torch | date | again |", "|---|---|---|---|---|---|"]
    for title, one in networks.items():
        package = f"[{one['package']}]({homes[title]})" if homes.get(title) else one["package"]
        again = f'`revbench doctor "{one["model"]}"`'
        lines.append(f"| {title} | {package} | {one['version']} | {one['torch']} | {one['date']} | {again} |")
    lines += ["", *(f"- **{title}.** {note}" for title, note in NOTES.items() if title in networks)]
    lines += [
        "",
        "All of them: `pip install revbench[zoo]`, then `python docs/zoo.py`. The networks are in"
        " [`revbench/zoo`](../revbench/zoo).",
    ]
    for name, check in CHECKS.items():
        lines += ["", f"## {name}", "", f"{check.question} If not: {check.means} Mend: {check.mend}", ""]
        seen: dict[tuple[str, str], list[str]] = {}
        for title, one in networks.items():
            verdict, words = one["findings"][name]
            if verdict != "passed":
                seen.setdefault((verdict, words), []).append(title)
        lines += [f"- {_mark(*said)} {', '.join(titles)}: {_plain(said[1])}" for said, titles in seen.items()] or [
            "All pass."
        ]
    return "\n".join(lines) + "\n"


def _mark(verdict: str, words: str) -> str:
    return "*raises*" if verdict == "failed" and words.startswith(RAISES) else MARKS[verdict]


def _plain(words: str) -> str:
    cut = words if len(words) <= 200 else f"{words[:199]}…"
    return cut.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    if "--render" not in sys.argv:
        FOUND.write_text(
            json.dumps(examine_all([a for a in sys.argv[1:] if a != "--render"]), indent=1, ensure_ascii=False) + "\n"
        )
    PAGE.write_text(page(json.loads(FOUND.read_text())))
