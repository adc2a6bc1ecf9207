"""What cases are called in reports and in the terminal."""

from __future__ import annotations

import re

from revbench.case import Case
from revbench.models.catalogue import CATALOGUE


def title_of(model: str) -> str:
    """A model's name as the paper writes it: ``RevNet-38``; our chains in words; a factory as it is, cut if it is very long."""
    if model in CATALOGUE:
        return model.replace("resnet", "ResNet").replace("revnet", "RevNet")
    if found := re.fullmatch(r"revbench\.peers:chain\(kind=(\w{1,20}),blocks=(\d{1,9})\)", model):
        return f"{found[2]} {found[1]} blocks"
    return model if len(model) <= 60 else f"{model[:59]}…"


def strategy_of(case: Case) -> str:
    """A strategy in words, with what else is chosen about the activations."""
    words = [case.strategy]
    if case.nonreversible == "recomputed":
        words.append("rest recomputed")
    if case.kept_half_blocks:
        words.append(f"last {case.kept_half_blocks} kept")
    if case.certify:
        words.append("certified")
    return ", ".join(words)


def arithmetic_of(case: Case) -> str:
    """The arithmetic of a case in words: ``float32``, ``autocast bfloat16``, ``TF32``."""
    if case.autocast != "none":
        return f"autocast {case.autocast}"
    return "TF32" if case.dtype == "float32" and (case.tf32_matmul or case.tf32_convolution) else case.dtype


def circumstances(case: Case, *, batch: bool = True) -> str:
    """What a group of cases has in common, in words; without the batch where that is what they differ in."""
    words = [case.dtype, f"batch {case.batch_size}"] if batch else [case.dtype]
    if case.image_size:
        words.append(f"{case.image_size}×{case.image_size}")
    elif case.model in CATALOGUE:
        size = CATALOGUE[case.model].image_size
        words.append(f"{size}×{size}")
    words.append(case.device)
    if case.autocast != "none":
        words.append(f"autocast {case.autocast}")
    if case.compile:
        words.append("compiled")
    if case.world_size > 1:
        words.append(f"{case.world_size} processes")
    return ", ".join(words)
