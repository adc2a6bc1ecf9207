"""The cases that the built-in suites measure, by what an invocation asks for (`revbench.tiers.Plan`)."""

from __future__ import annotations

import importlib.util

from revbench.case import Case
from revbench.case.chains import Chain, chain_model
from revbench.case.pairs import pair_cases
from revbench.choices import CHAIN_KINDS, DTYPES, PEERS, STRATEGIES
from revbench.paper.catalogue import CATALOGUE
from revbench.paper.recipes import RECIPES
from revbench.paper.residual import ResidualArchitecture
from revbench.tiers import Plan
from revbench.training.sources import TEXT

DRIFT_DEPTH_BATCH_SIZE, DRIFT_DEPTH_IMAGE_SIZE = 4, 8
_COUPLING_BATCH_SIZE, _COUPLING_TOKENS = 4, 32


def step_cases(plan: Plan) -> list[Case]:
    """Returns each pair of the tier under every strategy that its networks support."""
    cases = []
    for resnet in plan.size.pairs:
        batch_size = plan.size.batch_sizes[resnet][plan.on_gpu]
        for model in (resnet, CATALOGUE[resnet].pair):
            case = Case(model=model, batch_size=batch_size, device=plan.device)
            cases.append(case)
            if CATALOGUE[model].reversible:
                cases.append(case.replace(strategy="reconstructed"))
                cases.append(case.replace(strategy="reconstructed", nonreversible="recomputed"))
            cases += [case.replace(strategy=strategy) for strategy in ("checkpointed", "recursive")]
    return cases


def leak_cases(plan: Plan) -> list[Case]:
    """Returns the RevNets of the first pair: stored and reconstructed."""
    revnet = CATALOGUE[plan.size.pairs[0]].pair
    return [case for case in revnet_cases(plan) if case.model == revnet]


def gpu_cases(plan: Plan) -> list[Case]:
    """Returns each RevNet of the tier, stored and reconstructed, on a GPU; none on the CPU."""
    return revnet_cases(plan) if plan.on_gpu else []


def revnet_cases(plan: Plan) -> list[Case]:
    """Returns each RevNet of the tier, stored and reconstructed."""
    return [
        case
        for case in step_cases(plan)
        if CATALOGUE[case.model].reversible
        and case.nonreversible == "kept"
        and case.strategy in ("stored", "reconstructed")
    ]


def catalogue_cases(plan: Plan) -> list[Case]:
    """Returns every network of the catalogue, those for CIFAR with 10 and with 100 classes; no step of them is run."""
    cases = []
    for name, architecture in CATALOGUE.items():
        case = Case(model=name, batch_size=1)
        cases.append(case)
        if isinstance(architecture, ResidualArchitecture) and architecture.stem == "cifar":
            cases.append(case.replace(num_classes=100))
    return cases


def drift_cases(plan: Plan) -> list[Case]:
    """Returns each RevNet of the tier, reconstructed (`stored` is measured beside it): float32 and float64; the first in all
    arithmetics of the tier, with TF32 on a GPU.
    """
    cases = []
    first = CATALOGUE[plan.size.pairs[0]].pair
    for case in revnet_cases(plan):
        if case.strategy == "stored":
            continue
        dtypes = plan.size.drift_dtypes if case.model == first else ("float32", "float64")
        cases += [case.replace(dtype=dtype) for dtype in dtypes]
        if case.model == first:
            cases += [case.replace(autocast=autocast) for autocast in plan.size.drift_autocasts]
            if plan.on_gpu:
                cases.append(case.replace(tf32_matmul=True, tf32_convolution=True))
    return cases


def drift_depth_cases(plan: Plan) -> list[Case]:
    """Returns chains of growing depth, small enough that hundreds of blocks can be measured in float64."""
    return [
        Case(
            model=chain_model("basic", blocks), strategy="reconstructed", dtype=dtype,
            batch_size=DRIFT_DEPTH_BATCH_SIZE, image_size=DRIFT_DEPTH_IMAGE_SIZE, device=plan.device,
        )
        for dtype in DTYPES
        for blocks in plan.size.drift_blocks
    ]  # fmt: skip


def lipschitz_cases(plan: Plan) -> list[Case]:
    """Returns the first RevNet of the tier in float32, and the chains of drift in each dtype, as deep as the tier says."""
    depth = plan.size.lipschitz_blocks
    chains = [case for case in drift_depth_cases(plan) if (_chain(case).blocks or 0) <= depth]
    return [drift_cases(plan)[0], *chains]


def coupling_cases(plan: Plan) -> list[Case]:
    """Returns the reversible language model of a CPU's size by each coupling of the tier, reconstructed."""
    base = Case(
        model=CATALOGUE["gpt-1m"].pair, depth=plan.size.coupling_depth, sequence_length=_COUPLING_TOKENS,
        batch_size=_COUPLING_BATCH_SIZE, strategy="reconstructed", device=plan.device,
    )  # fmt: skip
    return [base.replace(coupling=coupling) for coupling in ("additive", *plan.size.couplings)]


def coupling_step_cases(plan: Plan) -> list[Case]:
    """Returns the same, stored and reconstructed, if the tier measures their steps."""
    return [one for case in coupling_cases(plan) for one in (case.stored(), case)] if plan.size.coupling_steps else []


def determinism_cases(plan: Plan) -> list[Case]:
    """Returns the RevNet of the first pair under every strategy."""
    revnet = CATALOGUE[plan.size.pairs[0]].pair
    return [case for case in step_cases(plan) if case.model == revnet]


def training_cases(plan: Plan) -> list[Case]:
    """Returns each training pair: the ordinary network stored, the reversible one stored and reconstructed, and the nulls of the
    latter; language models on the text that comes with Python, by their recipe."""
    cases = []
    limit = plan.size.training_images
    for name in plan.size.training_pairs:
        pair = name, CATALOGUE[name].pair
        case = Case(model=name, device=plan.device, training_steps=plan.size.training_steps)
        if case.item == "token":
            recipe = RECIPES["text"]
            case = case.replace(data=TEXT, recipe="text", optimizer=recipe.optimizer, batch_size=recipe.batch_size)
        else:
            case = case.replace(
                data=plan.data, batch_size=plan.size.training_batch_size,
                num_classes=None if plan.num_classes == 10 else plan.num_classes,
                data_images=limit if limit < plan.images else 0,
            )  # fmt: skip
        cases += pair_cases(pair, case, nulls=plan.size.nulls, seeds=[case.seed])
    return cases


def limit_leads(plan: Plan) -> list[Case]:
    """Returns a pair and a memory limit: what a group of `limit_cases` is named by."""
    return [
        Case(model=resnet, batch_size=1, device=plan.device, memory_limit_bytes=limit)
        for resnet in plan.size.limit_pairs
        for limit in plan.size.limits_bytes[plan.on_gpu]
    ]


def limit_cases(lead: Case) -> list[Case]:
    """Returns both networks of a pair under every strategy, under one memory limit."""
    cases = []
    for model in (lead.model, CATALOGUE[lead.model].pair):
        case = lead.replace(model=model)
        cases.append(case)
        if CATALOGUE[model].reversible:
            reconstructed = case.replace(strategy="reconstructed")
            cases += [reconstructed, reconstructed.replace(nonreversible="recomputed")]
            cases += [case.replace(strategy=strategy) for strategy in ("checkpointed", "recursive")]
    return cases


def deep_leads(plan: Plan) -> list[Case]:
    """Returns a language model of each depth under a memory limit: what a group of `deep_cases` is named by."""
    size, at = plan.size, plan.on_gpu
    return [
        Case(
            model=size.deep_models[at], batch_size=1, device=plan.device, memory_limit_bytes=size.deep_limits_bytes[at],
            sequence_length=size.deep_sequence_length[at], depth=blocks,
        )
        for blocks in size.deep_blocks
    ]  # fmt: skip


def deep_cases(lead: Case) -> list[Case]:
    """Returns a language model and its reversible pair, stored and checkpointed, and that reconstructed."""
    other = lead.replace(model=CATALOGUE[lead.model].pair)
    both = [case.replace(strategy=strategy) for case in (lead, other) for strategy in ("stored", "checkpointed")]
    return [*both, other.replace(strategy="reconstructed")]


def depth_cases(plan: Plan) -> list[Case]:
    """Returns chains and networks of growing depth under every strategy of Table 1 of the paper."""
    size = plan.size
    bases = [
        Case(model=chain_model("basic", blocks), batch_size=size.depth_batch_size, device=plan.device)
        for blocks in size.depths
    ]
    bases += [
        Case(model=name, depth=blocks, batch_size=size.depth_batch_size, device=plan.device)
        for name in size.depth_networks
        for blocks in size.depths
    ]
    return [case.replace(strategy=strategy) for strategy in STRATEGIES for case in bases]


def chain_case(plan: Plan, kind: str, library: str = "revbench", *, tripwire: bool = True) -> Case:
    """Returns the chain by which libraries are compared, stored by plain autograd."""
    model = chain_model(kind, plan.size.chain_blocks, library=library, tripwire=tripwire)
    return Case(model=model, batch_size=plan.size.chain_batch_size, device=plan.device)


def chain_cases(plan: Plan) -> list[Case]:
    """Returns our strategies and PyTorch's own ways on both kinds of chain; `recursive` is of another order, see Table 1."""
    cases = []
    for kind in CHAIN_KINDS:
        stored = chain_case(plan, kind)
        reconstructed = stored.replace(strategy="reconstructed")
        cases += [stored, reconstructed, reconstructed.replace(kept_half_blocks=1), reconstructed.replace(certify=True)]
        names = ["checkpointed", "torch_checkpoint", "torch_selective"]
        if plan.on_gpu:
            names.append("torch_offload")
        if plan.size.chain_compiled:
            names.append("torch_budget")
            cases += [stored.replace(compile=True), reconstructed.replace(compile=True)]
        cases += [stored.replace(strategy=name) for name in names]
    return cases


def contenders(plan: Plan) -> list[Case]:
    """Returns all that are timed on both kinds of chain: our strategies, PyTorch's ways, and the libraries that are installed.

    Ours once more without its tripwire, whose cost that is.
    """
    peers = [name for name in PEERS if importlib.util.find_spec(name)]
    cases = []
    for kind in CHAIN_KINDS:
        others = [chain_case(plan, kind, tripwire=False), *(chain_case(plan, kind, name) for name in peers)]
        cases += [case for case in chain_cases(plan) if _chain(case).kind == kind]
        cases += [case.replace(strategy="reconstructed") for case in others]
    return cases


def _chain(case: Case) -> Chain:
    found = Chain.of(case)
    assert found is not None
    return found
