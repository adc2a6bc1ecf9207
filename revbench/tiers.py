"""How much each tier of the built-in suites measures, and what an invocation asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from revbench.case import Case, is_gpu
from revbench.choices import DTYPES
from revbench.training.sources import DIGITS, TRAINING_IMAGES


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
        couplings: beside the additive one, by which a language model's functions are put together.
        coupling_depth: blocks of that.
        coupling_steps: whether its steps are measured, too, beside its drift.
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
    couplings: tuple[str, ...] = (
        "hamiltonian:0.5", "momentum:0.9", "momentum:0.9:forget", "midpoint:0.5", "midpoint:0.5:forget", "leapfrog:0.5",
        "leapfrog:0.5:forget",
    )  # fmt: skip
    coupling_depth: int = 10
    coupling_steps: bool = True


_MIB, _GIB = 2**20, 2**30
_LIMITS = ((64 * _MIB, 256 * _MIB, 1024 * _MIB), tuple(n * _GIB for n in (8, 16, 24, 40, 80)))
_DEEP = (16, 32, 64, 96)
_TRANSFORMERS = {"gpt-1m": (16, 64), "vit-1m": (16, 64)}
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
        couplings=("momentum:0.9", "momentum:0.9:forget", "midpoint:0.5"), coupling_depth=4, coupling_steps=False,
    ),
    # The CIFAR pairs of Table 2 with the paper's batch of 100.
    "full": Tier(
        pairs=(*_CIFAR, "gpt-1m", "vit-1m"), batch_sizes={**dict.fromkeys(_CIFAR, (100, 100)), **_TRANSFORMERS},
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
        pairs=(*_CIFAR, "resnet-101", "gpt-1m", "vit-1m"),
        batch_sizes={**dict.fromkeys(_CIFAR, (100, 100)), "resnet-101": (16, 64), **_TRANSFORMERS},
        training_pairs=_CIFAR, training_steps=80_000, training_batch_size=100,
        training_images=0, validation_images=0, nulls=3, max_seconds=30.0,
        draws=30, drift_dtypes=DTYPES, drift_autocasts=("bfloat16", "float16"), drift_blocks=(9, 36, 100, 300),
        lipschitz_blocks=100,
        chain_blocks=9, chain_batch_size=32, chain_rounds=15, chain_compiled=True,
        limit_pairs=("resnet-164", "resnet-101"), limits_bytes=_LIMITS,
        depths=(9, 16, 32, 64, 128, 200), depth_batch_size=4, depth_networks=("revgpt-1m",),
        deep_blocks=_DEEP, deep_limits_bytes=(160 * _MIB, 12 * _GIB),
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
