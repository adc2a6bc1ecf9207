"""What cases are called: in the terminal, in tables and sentences, in pictures."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.case.chains import Chain
from revbench.case.definition import Case
from revbench.paper.catalogue import CATALOGUE
from revbench.units import human_bytes

_LONGEST = 60  # letters of a factory's name in a table
_BY_VALUE = "revbench.by_value:load(name="  # of a network that was in a notebook only

# Fields of a case that `trained_label` names only where cases differ in them.
_UNNAMED = (
    "num_classes", "recipe", "image_size", "sequence_length", "depth", "device", "memory_format", "compile", "accumulate",
    "clip_norm", "world_size", "sync_batch_norm", "tf32_matmul", "tf32_convolution", "cudnn_benchmark", "deterministic",
    "threads", "allocator",
)  # fmt: skip


def title_of(model: str) -> str:
    """Returns a model's name as the paper writes it: ``RevNet-38``; our chains in words; a factory as it is, cut if it is very
    long."""
    if model in CATALOGUE:
        return CATALOGUE[model].title
    if model.startswith(_BY_VALUE):
        return model.removeprefix(_BY_VALUE).partition(",")[0]
    chain = Chain.of(Case(model=model))
    if chain is not None and [name for name, _ in chain.factory.written] == ["kind", "blocks"] and chain.blocks:
        return f"{chain.blocks} {chain.kind} blocks"
    return model if len(model) <= _LONGEST else f"{model[: _LONGEST - 1]}…"


def network_name(case: Case) -> str:
    """Returns what a case's network is called: with its coupling and depth, if those are not the catalogue's."""
    words = [title_of(case.model)]
    if case.coupling != "additive":
        words.append(case.coupling)
    if (deep := deep_as(case)) is not None:
        words.append(deep)
    return ", ".join(words)


def strategy_of(case: Case) -> str:
    """Returns a strategy in words, with what else is chosen about the activations."""
    words = [case.strategy]
    if case.nonreversible == "recomputed":
        words.append("rest recomputed")
    if case.kept_half_blocks:
        words.append(f"last {case.kept_half_blocks} kept")
    if case.certify:
        words.append("certified")
    return ", ".join(words)


def way_of(case: Case) -> str:
    """Returns how a chain is back-propagated: by which strategy of ours, or by which library."""
    chain = Chain.of(case)
    foreign = chain is not None and chain.library != "revbench"
    way = chain.library if chain is not None and foreign else strategy_of(case)
    if chain is not None and not chain.has_tripwire:
        way = f"{way}, no tripwire"
    return f"{way}, compiled" if case.compile else way


def circumstances(case: Case, *, dtype: bool = True, batch: bool = True) -> str:
    """Returns what a group of cases has in common, in words.

    Args:
        case: one of them.
        dtype, batch: False where that is what they differ in.
    """
    words = [case.dtype] if dtype else []
    if batch:
        words.append(f"batch {case.batch_size}")
    if case.item == "token":
        words.append(f"{case.items // case.batch_size} tokens")
    elif size := case.image_size or getattr(case.architecture, "image_size", None):
        words.append(f"{size}×{size}")
    words.append(case.device)
    if case.autocast != "none":
        words.append(f"autocast {case.autocast}")
    if case.compile:
        words.append("compiled")
    if case.world_size > 1:
        words.append(f"{case.world_size} processes")
    return ", ".join(words)


def deep_as(case: Case) -> str | None:
    """Returns how deep a network is that is not as deep as in the catalogue, in words; None of any other."""
    known = case.architecture
    if known is None or case.depth is None:
        return None
    units = known.grown(case.depth)
    return None if tuple(units) == tuple(known.depth) else known.deepened(units).layers


def full_title(case: Case) -> str:
    """Returns what a case is called where it stands alone: network, strategy and circumstances."""
    return f"{network_name(case)} {strategy_of(case)} ({circumstances(case)})"


def member_of(case: Case) -> str:
    """Returns what a training is called beside the others of its pair: network, strategy, null, seed."""
    words = [network_name(case), strategy_of(case)]
    if case.ulp:
        words.append(f"null {case.ulp}")
    return " ".join(words) + (f", seed {case.seed}" if case.seed else "")


def trained_label(case: Case, others: Sequence[Case]) -> str:
    """Says on what and how a network was trained, with whatever else the others differ in."""
    words = [case.data, strategy_of(case), f"{case.training_steps:,} steps"]
    if case.data_images:
        words.append(f"{case.data_images:,} images")
    if case.batch_size != case.schedule.recipe.batch_size:
        words.append(f"batch {case.batch_size}")
    if case.arithmetic.name != "float32":
        words.append(case.arithmetic.name)
    differing = [name for name in _UNNAMED if len({getattr(other, name) for other in others}) > 1]
    words += [f"{name}={getattr(case, name)}" for name in differing]
    return ", ".join(words)


def describe(case: Case) -> str:
    """Returns a case in a few words, for a line of the terminal: model, strategy, batch, and what else is unusual about it."""
    if case == Case(model=case.model, batch_size=1, num_classes=case.num_classes):
        return case.model if case.num_classes is None else f"{case.model} {case.num_classes} classes"
    words = [case.model.removeprefix("revbench.peers:"), case.strategy]
    if case.nonreversible == "recomputed":
        words[-1] += "+recomputed"
    if case.kept_half_blocks:
        words[-1] += f"+{case.kept_half_blocks} kept"
    if case.certify:
        words[-1] += "+certified"
    if case.compile:
        words[-1] += "+compiled"
    if case.coupling != "additive":
        words.append(case.coupling)
    if (deep := deep_as(case)) is not None:
        words.append(deep)
    words += [case.arithmetic.name, f"batch {case.batch_size}"]
    if case.memory_limit_bytes:
        words.append(f"in {human_bytes(case.memory_limit_bytes)}")
    if case.training_steps:
        words.append(case.data)
    if case.ulp:
        words.append(f"null {case.ulp}")
    return " ".join(words)
