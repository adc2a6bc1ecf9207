"""The closed sets of words that a case is made of; no torch is imported here."""

from __future__ import annotations

from typing import Literal, get_args

Strategy = Literal["stored", "reconstructed", "checkpointed", "recursive"]
Nonreversible = Literal["kept", "recomputed"]
Status = Literal["ok", "oom", "timeout", "crashed", "unsupported"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
NONREVERSIBLE: tuple[Nonreversible, ...] = get_args(Nonreversible)
STATUSES: tuple[Status, ...] = get_args(Status)
DTYPES = ("float32", "float64", "bfloat16")
AUTOCASTS = ("none", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "adamw")
MEMORY_FORMATS = ("contiguous", "channels_last")
ALLOCATORS = ("pinned", "default")
