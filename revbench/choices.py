"""The closed sets of words that a case is made of; no torch is imported here."""

from __future__ import annotations

from typing import Literal, get_args

OwnStrategy = Literal["stored", "reconstructed", "checkpointed", "recursive"]
TorchStrategy = Literal["torch_checkpoint", "torch_selective", "torch_budget", "torch_offload"]
Strategy = OwnStrategy | TorchStrategy
Nonreversible = Literal["kept", "recomputed"]
CouplingName = Literal["additive", "affine", "hamiltonian", "momentum", "midpoint", "leapfrog"]
AffineScale = Literal["tanh", "sigmoid", "exp"]
Status = Literal["ok", "oom", "timeout", "crashed", "unsupported"]

STRATEGIES: tuple[OwnStrategy, ...] = get_args(OwnStrategy)
TORCH_STRATEGIES: tuple[TorchStrategy, ...] = get_args(TorchStrategy)
ALL_STRATEGIES: tuple[Strategy, ...] = (*STRATEGIES, *TORCH_STRATEGIES)
NONREVERSIBLE: tuple[Nonreversible, ...] = get_args(Nonreversible)
COUPLINGS: tuple[CouplingName, ...] = get_args(CouplingName)
AFFINE_SCALES: tuple[AffineScale, ...] = get_args(AffineScale)
STATUSES: tuple[Status, ...] = get_args(Status)
DTYPES = ("float32", "float64", "bfloat16")
AUTOCASTS = ("none", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "adamw")
MEMORY_FORMATS = ("contiguous", "channels_last")
ALLOCATORS = ("pinned", "default")
CHAIN_KINDS = ("basic", "bottleneck")
PEERS = ("revtorch", "revlib", "memcnn")  # libraries that we are compared with, named as they are imported
