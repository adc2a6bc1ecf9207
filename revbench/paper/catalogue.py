"""All networks by name, as data; this module imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from revbench.errors import unknown
from revbench.paper.architectures import Architecture
from revbench.paper.residual import RESIDUAL
from revbench.paper.transformers import TRANSFORMERS

CATALOGUE: Mapping[str, Architecture] = {**RESIDUAL, **TRANSFORMERS}


def architecture(name: str, **overrides: Any) -> Architecture:
    """Returns the named architecture with fields replaced, checked.

    Args:
        name: a key of `CATALOGUE`.
        overrides: fields of its class: of a residual network ``units``, ``channels``, ``stem_channels``, ``bottleneck``,
            ``num_classes``, ``image_size``; of a transformer ``blocks``, ``width``, ``heads``, and ``vocabulary``,
            ``sequence_length``, ``positions`` or ``patch``, ``num_classes``, ``image_size``; of both ``coupling``.

    Raises:
        UserError: an unknown name or field, or a value that no network can have.
    """
    if name not in CATALOGUE:
        raise unknown("model", name, CATALOGUE)
    known = CATALOGUE[name]
    for field, value in overrides.items():
        if field not in known.OVERRIDES:
            raise unknown(f"override of {name}", field, known.OVERRIDES)
        if isinstance(value, list):
            overrides[field] = tuple(value)
    found = dataclasses.replace(known, **overrides)
    found.check()
    return found
