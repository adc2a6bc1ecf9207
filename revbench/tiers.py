"""What each tier of the built-in suites measures: the one place where their cases are chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from revbench.case import Case, is_gpu
from revbench.case.chains import Chain, chain_model
from revbench.case.pairs import pair_cases
from revbench.choices import CHAIN_KINDS, DTYPES, PEERS, STRATEGIES
from revbench.paper.catalogue import CATALOGUE
from revbench.paper.recipes import RECIPES
from revbench.paper.residual import ResidualArchitecture
from revbench.training.sources import DIGITS, TEXT, TRAINING_IMAGES


@dataclass(frozen=True, kw_only=True)
class Tier:
    """How much is measured.

    Attributes:
        pairs: ordinary networks; each is measured together with the reversible one that it is paired with.
        batch_sizes: items a step for each pair, on the CPU and on a GPU.
        training_pairs: ordinary networks of the pairs that are trained.
        training_steps, training_batch_size: of each training run; text has the batch of its recipe.
        training_images, validation_images: at most so many, drawn with a fixed seed; all if 0.
        nulls: training runs that differ by one unit in the last place of one weight.
        draws: of weights and batch, for drift.
        drift_dtypes: dtypes of the first pair's drift; all pairs have float32 and float64, chains of blocks all of `DTYPES`.
        drift_autocasts: autocasts of the first pair's drift.
        drift_blocks: of the chains by which drift is drawn against depth.
        lipschitz_blocks: of the deepest of them whose Lipschitz constants are estimated.
        max_seconds: how long the steps of one timed case may take.
        chain_blocks: of the chains by which libraries are compared.
        chain_batch_size: images a step of these.
        chain_rounds: interleaved steps of each.
        limit_pairs: ResNets of the pairs that are compared under a memory limit.
        limits_bytes: these limits, on the CPU and on a GPU.
        depths: blocks of the chains by which memory is drawn against depth.
        depth_batch_size: items a step of these.
        depth_networks: of the catalogue, that are drawn against depth beside them.
        deep_models: language models, on the CPU and on a GPU, whose speed is drawn against depth within the same memory.
        deep_blocks: how deep.
        deep_sequence_length: of them, on the CPU and on a GPU.
        deep_limits_bytes: this memory, on the CPU and on a GPU.
        chain_compiled: whether the compiled ways are among them; compilation takes a minute or more each.
    """

    pairs: tuple[str, ...]
    batch_sizes: Mapping[str, tuple[int, int]]
    training_pairs: tuple[str, ...]
    training_steps: int
    training_batch_size: int
    training_images: int
    validation_images: int
    nulls: int
    draws: int
    drift_dtypes: tuple[str, ...]
    drift_autocasts: tuple[str, ...]
    drift_blocks: tuple[int, ...]
    lipschitz_blocks: int
    max_seconds: float
    chain_blocks: int
    chain_batch_size: int
    chain_rounds: int
    chain_compiled: bool
    limit_pairs: tuple[str, ...]
    limits_bytes: tuple[tuple[int, ...], tuple[int, ...]]
    depths: tuple[int, ...]
    depth_batch_size: int
    deep_blocks: tuple[int, ...]
    deep_limits_bytes: tuple[int, int]
    depth_networks: tuple[str, ...] = ()
    deep_models: tuple[str, str] = ("gpt-1m", "gpt-20m")
    deep_sequence_length: tuple[int, int] = (64, 256)


_MIB, _GIB = 2**20, 2**30
_LIMITS = ((64 * _MIB, 256 * _MIB, 1024 * _MIB), tuple(n * _GIB for n in (8, 16, 24, 40, 80)))
_DEEP = (16, 32, 64, 96)
_CIFAR = ("resnet-32", "resnet-110", "resnet-164")

TIERS: Mapping[str, Tier] = {
    # About 7 minutes on 2 CPU cores; small batches, so that every strategy gets its turn.
    "quick": Tier(
        pairs=("resnet-32", "resnet-164", "gpt-1m"),
        batch_sizes={"resnet-32": (16, 100), "resnet-164": (8, 100), "gpt-1m": (4, 64)},
        training_pairs=("resnet-32",), training_steps=40, training_batch_size=16,
        training_images=10_000, validation_images=1_000, nulls=1, max_seconds=1.5,
        draws=6, drift_dtypes=("float32", "float64"), drift_autocasts=(), drift_blocks=(3, 9, 18), lipschitz_blocks=9,
        chain_blocks=3, chain_batch_size=4, chain_rounds=5, chain_compiled=False,
        limit_pairs=("resnet-32",), limits_bytes=((32 * _MIB,), (8 * _GIB,)),
        depths=(4, 8, 16, 32), depth_batch_size=1, deep_blocks=(4, 8), deep_limits_bytes=(24 * _MIB, 4 * _GIB),
    ),
    # The CIFAR pairs of Table 2 with the paper's batch of 100.
    "full": Tier(
        pairs=(*_CIFAR, "gpt-1m"), batch_sizes={**dict.fromkeys(_CIFAR, (100, 100)), "gpt-1m": (16, 64)},
        training_pairs=("resnet-32", "gpt-1m"), training_steps=1000, training_batch_size=100,
        training_images=10_000, validation_images=1_000, nulls=3, max_seconds=10.0,
        draws=30, drift_dtypes=DTYPES, drift_autocasts=("bfloat16", "float16"), drift_blocks=(9, 36, 100, 300),
        lipschitz_blocks=100,
        chain_blocks=9, chain_batch_size=32, chain_rounds=15, chain_compiled=True,
        limit_pairs=("resnet-32", "resnet-164"), limits_bytes=_LIMITS,
        depths=(9, 16, 32, 64, 128, 200), depth_batch_size=4, depth_networks=("revgpt-1m",),
        deep_blocks=_DEEP, deep_limits_bytes=(160 * _MIB, 12 * _GIB),
    ),
    # Table 2 whole, and the paper's 80,000 steps: hours on a GPU.
    "paper": Tier(
        pairs=(*_CIFAR, "resnet-101", "gpt-1m"),
        batch_sizes={**dict.fromkeys(_CIFAR, (100, 100)), "resnet-101": (16, 64), "gpt-1m": (16, 64)},
        training_pairs=_CIFAR, training_steps=80_000, training_batch_size=100,
        training_images=0, validation_images=0, nulls=3, max_seconds=30.0,
        draws=30, drift_dtypes=DTYPES, drift_autocasts=("bfloat16", "float16"), drift_blocks=(9, 36, 100, 300),
        lipschitz_blocks=100,
        chain_blocks=9, chain_batch_size=32, chain_rounds=15, chain_compiled=True,
        limit_pairs=("resnet-164", "resnet-101"), limits_bytes=_LIMITS,
        depths=(9, 16, 32, 64, 128, 200), depth_batch_size=4, deep_blocks=_DEEP, deep_limits_bytes=(160 * _MIB, 12 * _GIB),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an invocation asks the suites for.

    Attributes:
        tier: a key of `TIERS`.
        device: ``cpu`` or ``cuda``.
        data: label of the data set that is trained on.
        data_path: where it is; see `revbench.training.data.load_images`.
        num_classes: of the data.
        images: that its training set holds.
    """

    tier: str
    device: str
    data: str
    data_path: str
    num_classes: int = 10
    images: int = TRAINING_IMAGES[DIGITS]

    @property
    def on_gpu(self) -> bool:
        """Whether the suites run on a GPU."""
        return is_gpu(self.device)

    def path_of(self, case: Case) -> str:
        """Returns where the data of a training case is."""
        return self.data_path if case.data == self.data else case.data

    @property
    def size(self) -> Tier:
        """The tier's settings."""
        return TIERS[self.tier]


DRIFT_DEPTH_BATCH_SIZE, DRIFT_DEPTH_IMAGE_SIZE = 4, 8

Cases = Callable[[Plan], list[Case]]


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
