"""How things look in every picture: one palette for strategies, one for arithmetics, one for kinds of memory; with markers and
dashes, so that they are told apart without colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from revbench.case import Case
from revbench.case.labels import strategy_of

INK = "#1b1f24"  # text, axes and what is drawn in black
SOFT = "#6b7580"  # what stands behind it
GRID = "#e3e6e9"
ON_PALE = "#1c1f24"  # letters on a pale ground, in dark pages too


class Look(NamedTuple):
    """A colour with what tells it apart in grey."""

    colour: str
    marker: str
    dashes: Any = "-"


# Strategies: Okabe and Ito's colours, darkened where they would be pale on white.
STRATEGIES: Mapping[str, Look] = {
    "stored": Look("#00639c", "o"),
    "reconstructed": Look("#de6300", "D", (0, (7, 1.5))),
    "reconstructed, rest recomputed": Look("#b8860b", "d", (0, (5, 1))),
    "reconstructed, last 1 kept": Look("#e0788f", "p", (0, (3, 1, 1, 1))),
    "reconstructed, certified": Look("#8c564b", "h", (0, (1, 1))),
    "checkpointed": Look("#009e73", "s", "--"),
    "recursive": Look("#a560b0", "^", "-."),
    "torch_checkpoint": Look("#2f8f78", "X", (0, (4, 2))),
    "torch_selective": Look("#7c5fa8", "P", (0, (2, 1))),
    "torch_budget": Look("#5f9ea0", "*", (0, (6, 2, 1, 2))),
    "torch_offload": Look("#708090", "v", ":"),
}

# Arithmetics: from green over purple, the narrower the further from green.
ARITHMETICS: Mapping[str, Look] = {
    "float64": Look("#1b7837", "o"),
    "float32": Look("#4aa564", "s", "--"),
    "TF32": Look("#8a9a5b", "D", (0, (5, 1))),
    "bfloat16": Look("#762a83", "^", "-."),
    "autocast bfloat16": Look("#a06fb5", "v", (0, (3, 1, 1, 1))),
    "autocast float16": Look("#c46fa0", "P", ":"),
}

# Kinds of memory: earth and sea.
PARAMETERS, STATE, GRADIENTS, ACTIVATIONS = "#3f3f46", "#c6cad0", "#c79a2b", "#2a8c99"
LEVEL, ON_TOP, LESS = "#2a6f7a", "#c79a2b", "#9c5a4a"

ORDINARY = Look("#777777", "s", (0, (1, 1)))
FOREIGN = "#808a94"  # another library's

# What would be too weak on a dark page, and what stands there instead.
ON_DARK: Mapping[str, str] = {
    "#00639c": "#4aa3df", "#8c564b": "#c08a7d", "#7c5fa8": "#a98fd6", "#a560b0": "#c184cb", "#1b7837": "#8fd694",
    "#762a83": "#c07fd0", "#a06fb5": "#dcb4ec", "#3f3f46": "#8b9096", "#2a6f7a": "#4fa5b3", "#9c5a4a": "#cf8a78",
    "#777777": "#a0a6ac", "#708090": "#93a3b3",
}  # fmt: skip


def look_of(case: Case) -> Look:
    """Returns how a way to train is drawn, the same in every picture."""
    return STRATEGIES.get(strategy_of(case), STRATEGIES[case.strategy])


def look_of_arithmetic(name: str) -> Look:
    """Returns how an arithmetic is drawn."""
    return ARITHMETICS.get(name, Look(INK, "x"))
