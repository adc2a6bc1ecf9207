"""Whether two versions of the code are two at all: what is imported from elsewhere is the same in both."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder

import revbench
from revbench.errors import UserError
from revbench.imports import path_for
from revbench.runner.other_tree import OtherTree


def check_versions(tree: OtherTree, ref: str, models: Sequence[str]) -> None:
    """See that the code of models is imported from the tree that has another version.

    Args:
        tree: where both versions are.
        ref: the other one, as git knows it.
        models: catalogue names, whose code is revbench's, or ``package.module:factory``.

    Raises:
        UserError: a model's code is imported from elsewhere, and so would be the same in both; or the other version has it not.
    """
    for model in models:
        module = model.partition(":")[0] if ":" in model else "revbench"
        # This very revbench is what the workers import, too, wherever on the path it stands.
        place = revbench.__file__ if module == "revbench" else _place_by_path(module, path_for([model]) or sys.path)
        seen = place or _place_by_any_hook(module)
        if seen is None:
            continue  # the worker says that there is no such module
        if place is None or not _inside(tree, place):
            raise UserError(
                f"--interleave {ref}: {model} is imported from {seen}, which git has no other version of here, so the same code"
                " would be compared with itself; begin in the repository that holds it, or put its folder on PYTHONPATH"
            )
        if tree.moved(place) == place:
            raise UserError(f"--interleave {ref}: that version has no {module}, so {model} can't be compared with it")


def _place_by_path(module: str, path: Sequence[str]) -> str | None:
    """Returns the file of a module as workers find it, from package to package, without importing anything."""
    names = module.split(".")
    found: ModuleSpec | None = None
    for i in range(len(names)):
        found = PathFinder.find_spec(".".join(names[: i + 1]), path)
        if found is None:
            return None
        path = list(found.submodule_search_locations or ())
    return _place(found)


def _place_by_any_hook(module: str) -> str | None:
    try:
        return _place(importlib.util.find_spec(module.partition(".")[0]))
    except (ImportError, ValueError):
        return None


def _place(found: ModuleSpec | None) -> str | None:
    """Returns the file of a module, or the folder of a package without one."""
    if found is None:
        return None
    return found.origin if found.has_location else next(iter(found.submodule_search_locations or ()), None)


def _inside(tree: OtherTree, place: str) -> bool:
    root = os.fspath(tree.root or "")
    return os.path.commonpath([os.path.realpath(place), root]) == root
