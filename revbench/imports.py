"""Where imports may come from: the current folder may be a stranger's run, so nothing is imported from it unless asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def forget_current_folder() -> None:
    """Take the current folder off the path of imports, whichever way it came there (``python -m`` puts it first).

    If it is the checkout that this very revbench runs from, it stays, but last.
    """
    import revbench

    here = _here()
    if here is None:
        sys.path[:] = [entry for entry in sys.path if entry]
        return
    home = str(Path(revbench.__file__).resolve().parent.parent)
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    if home == here:
        sys.path.append(here)


def path_for(models: Iterable[str], *, needed: bool = False) -> list[str]:
    """Returns the path on which the factories of these models are looked for: this process's, and last the current folder, so
    that
    nothing there shadows a library. Empty if no model needs one: then nothing is imported from anywhere but the libraries.

    Args:
        models: as `revbench.case.Case.model`.
        needed: whether one of them needs it that is not named as a factory of somebody's.
    """
    if not needed and not any(":" in model and not model.startswith("revbench.") for model in models):
        return []
    here = _here()
    found = [(here or entry) if entry == "" else entry for entry in sys.path]
    return found if here is None or here in found else [*found, here]


@contextmanager
def factories_of(models: Iterable[str]) -> Iterator[None]:
    """Inside, this process can import the factories of these models."""
    before = list(sys.path)
    sys.path[:] = path_for(models) or before
    try:
        yield
    finally:
        sys.path[:] = before


def _here() -> str | None:
    """Returns the current folder; None if it is gone."""
    try:
        return os.path.realpath(os.getcwd())
    except OSError:
        return None
