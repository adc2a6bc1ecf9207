"""What is measured: a frozen, hashable case whose id never changes when a later version adds a field."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revbench import words
from revbench.errors import UserError, unknown
from revbench.recipes import RECIPES

# Of the images and labels that a factory's network gets, where a case does not say.
DEFAULT_IMAGE_SIZE = 32
DEFAULT_CLASSES = 10
MOST_LETTERS = 1000  # of a model or a data set

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "strategy": words.ALL_STRATEGIES,
    "nonreversible": words.NONREVERSIBLE,
    "dtype": words.DTYPES,
    "autocast": words.AUTOCASTS,
    "optimizer": words.OPTIMIZERS,
    "memory_format": words.MEMORY_FORMATS,
    "allocator": words.ALLOCATORS,
    "recipe": tuple(RECIPES),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One combination of all that changes the arithmetic or the kernels of a training step.

    The constructor only stores; `check` says what is wrong with a case.

    Attributes:
        model: a catalogue name, ``package.module:factory``, or ``package.module:factory(depth=9,width=64)`` with
            plain values (see `revbench.workload`).
        strategy: ``stored``, ``reconstructed``, ``checkpointed``, ``recursive``, or one of PyTorch's own ways,
            ``torch_checkpoint``, ``torch_selective``, ``torch_budget``, ``torch_offload``
            (see `revbench.backprop.alternatives`).
        nonreversible: ``kept`` or ``recomputed``: activations of stem, head and shape-changing units.
        dtype: of weights and activations: ``float32``, ``float64`` or ``bfloat16``.
        autocast: ``none``, ``bfloat16`` or ``float16``.
        batch_size: images a step.
        image_size: height and width in pixels; the model's own if None.
        num_classes: the model's own if None.
        data: where batches come from: ``normal`` (standard normal images, uniform labels) or the label
            of a data set.
        device: ``cpu`` or ``cuda``.
        optimizer: ``sgd`` (momentum 0.9) or ``adamw``.
        learning_rate: at first. If 0, a training begins with the recipe's (``adamw``: 0.001), and steps that are only measured
            leave the weights where they were drawn: they cost the same, and no network diverges.
        memory_format: ``contiguous`` or ``channels_last``.
        tf32_matmul, tf32_convolution: TF32 arithmetic for float32 on a GPU that has it.
        cudnn_benchmark: let cuDNN choose its algorithms by timing them.
        deterministic: `torch.use_deterministic_algorithms`.
        allocator: glibc's malloc on the CPU: ``pinned`` (memory is not given back to the system, so a
            step takes no page faults) or ``default`` (blocks above 128 KiB are given back at once: glibc's
            documented thresholds, held fast, since by itself it moves them with what a process freed before).
        threads: of one operation on the CPU; PyTorch's own choice if 0.
        compile: `torch.compile` on each F, G and unit.
        kept_half_blocks: under ``reconstructed``, half blocks at the end of each reversible chain that keep their
            activations.
        certify: under ``reconstructed``, compare checksums of the activations.
        memory_limit_bytes: what a step may take; 0 is all there is. On a GPU PyTorch's allocator gives out no
            more; on the CPU the prediction alone keeps to it.
        training_steps: steps of a training case.
        recipe: how it is trained: ``cifar`` or ``imagenet`` (see `revbench.recipes`).
        data_images: training images that are used, drawn with a fixed seed; 0 is all.
        world_size: processes among which a training batch is split evenly.
        sync_batch_norm: batch statistics are those of the whole batch, not of each process's share.
        accumulate: parts that a training batch is gone through in; their gradients are added.
        clip_norm: the Euclidean norm to which a training step's gradient is cut; 0 cuts nothing.
        ulp: if not 0, one weight, chosen by this number, is moved by one unit in the last place.
        seed: of weights and batches.
    """

    model: str
    strategy: str = "stored"
    nonreversible: str = "kept"
    dtype: str = "float32"
    autocast: str = "none"
    batch_size: int = 100
    image_size: int | None = None
    num_classes: int | None = None
    data: str = "normal"
    device: str = "cpu"
    optimizer: str = "sgd"
    learning_rate: float = 0.0
    memory_format: str = "contiguous"
    tf32_matmul: bool = False
    tf32_convolution: bool = False
    cudnn_benchmark: bool = False
    deterministic: bool = False
    allocator: str = "pinned"
    threads: int = 0
    compile: bool = False
    kept_half_blocks: int = 0
    certify: bool = False
    memory_limit_bytes: int = 0
    training_steps: int = 0
    recipe: str = "cifar"
    data_images: int = 0
    world_size: int = 1
    sync_batch_norm: bool = False
    accumulate: int = 1
    clip_norm: float = 0.0
    ulp: int = 0
    seed: int = 0

    @property
    def id(self) -> str:
        """The model, then each field that differs from its default: ``revnet-38,strategy=reconstructed``."""
        parts = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name != "model" and getattr(self, field.name) != field.default
        ]
        return ",".join([self.model, *parts])

    def replace(self, **changes: Any) -> Case:
        """A copy with fields changed."""
        return dataclasses.replace(self, **changes)

    def stored(self) -> Case:
        """The same case with all activations stored: what its strategy is compared with."""
        return self.replace(strategy="stored", nonreversible="kept", kept_half_blocks=0, certify=False)

    def to_json(self) -> dict[str, Any]:
        """The fields as a plain dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Case:
        """The case of `to_json`; fields that this version does not know are refused.

        Raises:
            UserError: an unknown field, or a value of the wrong type.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, value in fields.items():
            if name not in defaults:
                raise unknown("field of a case", name, defaults)
            default = defaults[name]
            allowed: tuple[type, ...] = (str,)
            if isinstance(default, bool):
                allowed = (bool,)
            elif isinstance(default, int) or default is None:
                allowed = (int, type(None)) if default is None else (int,)
            elif isinstance(default, float):
                allowed = (int, float)
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise UserError(f"field {name} of a case can't be {value!r}")
            if isinstance(value, (int, float)) and not -(2**63) <= value < 2**63:  # nor NaN
                raise UserError(f"field {name} of a case can't be so large a number")
            if isinstance(value, str) and not value.isprintable():
                raise UserError(f"field {name} of a case holds unprintable characters: {value!r}")
        if "model" not in fields:
            raise UserError("a case needs the field model")
        case = cls(**fields)
        case._check_choices()
        return case

    def _check_choices(self) -> None:
        for name in ("model", "data"):
            if len(getattr(self, name)) > MOST_LETTERS:
                raise UserError(f"{name}={getattr(self, name)[:40]!r}… is longer than {MOST_LETTERS} letters")
        if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", self.device):
            raise unknown("device", self.device, ("cpu", "cuda", "cuda:N"))
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise unknown(field, getattr(self, field), known)

    def check(self) -> Case:
        """Say what is wrong with this case, as far as can be told without building it.

        Returns:
            The case itself.

        Raises:
            UserError: an unknown name, a number out of range, or a strategy that the model does not support.
        """
        from revbench.models.catalogue import CATALOGUE, architecture

        self._check_choices()
        if not self.data.isprintable():
            raise UserError(f"data={self.data!r} holds unprintable characters")
        for field, least in (
            ("batch_size", 1),
            ("threads", 0),
            ("kept_half_blocks", 0),
            ("memory_limit_bytes", 0),
            ("training_steps", 0),
            ("data_images", 0),
            ("world_size", 1),
            ("accumulate", 1),
            ("ulp", 0),
            ("seed", 0),
            ("image_size", 1),
            ("num_classes", 1),
        ):
            value = getattr(self, field)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{field}={value!r} must be an integer of at least {least}")
        for field in ("clip_norm", "learning_rate"):
            value = getattr(self, field)
            if not isinstance(value, (int, float)) or not 0 <= value < 2**63:
                raise UserError(f"{field}={value!r} must be a number of at least 0")
        if self.batch_size % self.world_size:
            raise UserError(
                f"batch_size={self.batch_size} can't be split evenly among {self.world_size} processes;"
                f" give a multiple of {self.world_size}"
            )
        if self.sync_batch_norm and self.world_size == 1:
            raise UserError("sync_batch_norm is of several processes (torchrun); leave it away")
        if self.accumulate > self.batch_size // self.world_size:
            raise UserError(
                f"accumulate={self.accumulate} is more than the {self.batch_size // self.world_size} items of a process's batch"
            )
        if self.strategy == "stored" and self.nonreversible == "recomputed":
            raise UserError("strategy=stored keeps every activation; nonreversible must be kept")
        if self.strategy != "reconstructed" and (self.kept_half_blocks or self.certify):
            raise UserError("kept_half_blocks and certify are of strategy=reconstructed; leave them away")
        if self.compile and self.strategy == "torch_budget":
            raise UserError("strategy=torch_budget compiles all units as one graph; leave compile away")
        if ":" in self.model:
            parse_factory(self.model)
        if ":" not in self.model:
            overrides = {k: getattr(self, k) for k in ("image_size", "num_classes") if getattr(self, k) is not None}
            found = architecture(self.model, **overrides)
            if self.strategy == "reconstructed" and found.family == "resnet":
                raise UserError(
                    f"{self.model} has no reversible block, so strategy reconstructed is not possible;"
                    f" its pair {CATALOGUE[self.model].pair} has them"
                )
        return self


def parse_factory(model: str) -> tuple[str, str, dict[str, Any]]:
    """Module, attribute and keyword arguments of ``package.module:factory(name=value,...)``.

    A value is an integer, a number, True, False, or else a word as it is.

    Raises:
        UserError: it has another form.
    """
    dotted, word = r"\w+(?:\.\w+)*", r"\w+=[\w.+-]+"
    found = re.fullmatch(rf"({dotted}):({dotted})(?:\(((?:{word}(?:,{word})*)?)\))?", model)
    if found is None:
        raise UserError(f"model {model!r} is no package.module:factory or package.module:factory(name=value,...)")
    module, attribute, listed = found.groups()
    arguments: dict[str, Any] = {}
    for entry in listed.split(",") if listed else ():
        name, _, text = entry.partition("=")
        if name in arguments:
            raise UserError(f"model {model!r} gives {name} twice")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = text
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UserError(f"model {model[:60]!r}: {name} can't be so large a number")
        arguments[name] = value
    return module, attribute, arguments
