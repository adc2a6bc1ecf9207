"""What is measured: a frozen, hashable case whose id never changes when a later version adds a field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revbench import choices
from revbench.case.bounds import Bound, CouplingName, Flag, Integer, Number, OneOf, Text
from revbench.case.factories import Factory
from revbench.case.views import Arithmetic, Backpropagation, Schedule
from revbench.errors import UserError, unknown
from revbench.paper.architectures import Architecture
from revbench.paper.catalogue import CATALOGUE, architecture
from revbench.paper.recipes import RECIPES

# Of the images and labels that a factory's network gets, where a case does not say.
DEFAULT_IMAGE_SIZE = 32
DEFAULT_CLASSES = 10
_MOST_LETTERS = 1000  # of a model or a data set


def _field(bound: Bound, about: str, default: Any = dataclasses.MISSING) -> Any:
    """Returns a field, what it may be, and what it is in words, with which the help of the command line and the class's own
    begin."""
    return dataclasses.field(default=default, metadata={"bound": bound, "about": about})


@dataclass(frozen=True, kw_only=True)
class Case:
    """One combination of all that changes the arithmetic or the kernels of a training step.

    The constructor only stores; `check` says what is wrong with a case.

    Attributes:
    """

    model: str = _field(
        Text(_MOST_LETTERS),
        "a catalogue name, ``package.module:factory``, or ``package.module:factory(depth=9,width=64)`` with plain values (see"
        " `revbench.workload`)",
    )
    strategy: str = _field(
        OneOf(choices.ALL_STRATEGIES),
        f"how backward has its activations: {', '.join(choices.STRATEGIES)}, or one of PyTorch's own ways,"
        f" {', '.join(choices.TORCH_STRATEGIES)}",
        "stored",
    )
    nonreversible: str = _field(
        OneOf(choices.NONREVERSIBLE),
        "kept or recomputed: activations of stem, head and units that change the shape, where the strategy allows it",
        "kept",
    )
    dtype: str = _field(OneOf(choices.DTYPES), f"of weights and activations: {', '.join(choices.DTYPES)}", "float32")
    autocast: str = _field(OneOf(choices.AUTOCASTS), f"one of {', '.join(choices.AUTOCASTS)}", "none")
    batch_size: int = _field(Integer(1), "items a step, of all processes together", 100)
    image_size: int | None = _field(
        Integer(1, optional=True), "height and width in pixels; the model's own if not given", None
    )
    num_classes: int | None = _field(Integer(1, optional=True), "outputs; the model's own if not given", None)
    sequence_length: int | None = _field(
        Integer(1, optional=True), "tokens of an item of a language model; the model's own if not given", None
    )
    depth: int | None = _field(
        Integer(1, optional=True),
        "units a group of a residual network (ImageNet: of its third), blocks of a transformer; the model's own if not given",
        None,
    )
    coupling: str = _field(
        CouplingName(),
        "how the functions and streams of a reversible network of the catalogue are put together: "
        f"{', '.join(choices.COUPLINGS)}, with its number after a colon (momentum:0.9; "
        "momentum:0.9:forget does not keep what enters)",
        "additive",
    )
    data: str = _field(
        Text(_MOST_LETTERS),
        "where batches come from: normal (standard normal images, uniform labels or tokens) or the label of a data set",
        "normal",
    )
    device: str = _field(
        Text(20, r"cpu|cuda(:\d{1,4})?", ("cpu", "cuda", "cuda:N")), "where it runs: cpu, cuda or cuda:N", "cpu"
    )
    optimizer: str = _field(
        OneOf(choices.OPTIMIZERS), f"one of {', '.join(choices.OPTIMIZERS)} (SGD has momentum)", "sgd"
    )
    learning_rate: float = _field(
        Number(0),
        "at first; 0 is the recipe's in a training (adamw: 0.001), and no change of weights in other measurements",
        0.0,
    )
    memory_format: str = _field(
        OneOf(choices.MEMORY_FORMATS), f"of images and weights: {', '.join(choices.MEMORY_FORMATS)}", "contiguous"
    )
    tf32_matmul: bool = _field(Flag(), "TF32 arithmetic for products of float32, on a GPU that has it", False)
    tf32_convolution: bool = _field(Flag(), "the same for convolutions", False)
    cudnn_benchmark: bool = _field(Flag(), "let cuDNN choose its algorithms by timing them", False)
    deterministic: bool = _field(Flag(), "forbid operations that give other bits in another call", False)
    allocator: str = _field(
        OneOf(choices.ALLOCATORS),
        "glibc's malloc on the CPU: pinned keeps freed memory, default gives blocks above 128 KiB back",
        "pinned",
    )
    threads: int = _field(Integer(0), "of one operation on the CPU; PyTorch's own choice if 0", 0)
    compile: bool = _field(Flag(), "run torch.compile on each F, G and unit", False)
    kept_half_blocks: int = _field(
        Integer(0),
        "under reconstructed, half blocks at the end of each reversible chain that keep their activations",
        0,
    )
    certify: bool = _field(Flag(), "under reconstructed, compare checksums of the activations", False)
    memory_limit_bytes: int = _field(
        Integer(0),
        "the most that a step may take; 0 is all there is",
        0,
    )
    training_steps: int = _field(Integer(0), "steps of a training case", 0)
    recipe: str = _field(OneOf(tuple(RECIPES)), f"how it is trained: one of {', '.join(RECIPES)}", "cifar")
    data_images: int = _field(Integer(0), "training images that are used, drawn with a fixed seed; 0 is all", 0)
    world_size: int = _field(Integer(1), "processes among which a training batch is split evenly", 1)
    sync_batch_norm: bool = _field(
        Flag(), "batch statistics are those of the whole batch, not of each process's share", False
    )
    accumulate: int = _field(Integer(1), "parts that a training batch is gone through in; their gradients are added", 1)
    clip_norm: float = _field(
        Number(0), "the Euclidean norm to which a training step's gradient is cut; 0 cuts nothing", 0.0
    )
    ulp: int = _field(
        Integer(0), "if not 0, one weight, chosen by this number, is moved by one unit in the last place", 0
    )
    seed: int = _field(Integer(0), "of weights and batches", 0)

    @property
    def id(self) -> str:
        """The model, then each field that differs from its default: ``revnet-38,strategy=reconstructed``."""
        parts = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name != "model" and getattr(self, field.name) != field.default
        ]
        return ",".join([self.model, *parts])

    @property
    def factory(self) -> Factory | None:
        """The factory that the model names; None of a network of the catalogue.

        Raises:
            UserError: the name has no such form.
        """
        return Factory.parse(self.model) if self.names_factory else None

    @property
    def names_factory(self) -> bool:
        """Whether the model is the name of a factory, in whatever form."""
        return ":" in self.model

    @property
    def architecture(self) -> Architecture | None:
        """The network of the catalogue that the model names, as it stands there; None of any other."""
        return CATALOGUE.get(self.model)

    @property
    def network(self) -> Architecture | None:
        """The same with whatever the case says of it: its depth, coupling, size of images, classes, length of sequences.

        Raises:
            UserError: no such network can be.
        """
        if self.architecture is None:
            return None
        fields = ("image_size", "num_classes", "sequence_length")
        given = {n: value for n in fields if (value := getattr(self, n)) is not None}
        if self.coupling != "additive":
            given["coupling"] = self.coupling
        found = architecture(self.model, **given)
        if self.depth is None:
            return found
        deep = found.deepened(found.grown(self.depth))
        deep.check()
        return deep

    @property
    def item(self) -> str:
        """What the work of a step is counted in: ``image``, ``token``, or ``item`` of a network that is not of the catalogue."""
        return "item" if self.architecture is None else self.architecture.item

    @property
    def items(self) -> int:
        """How many of them a step has."""
        known = self.architecture
        if known is None or known.item != "token":
            return self.batch_size
        return self.batch_size * (self.sequence_length or known.items)

    @property
    def arithmetic(self) -> Arithmetic:
        """In which numbers it is computed."""
        return Arithmetic(self.dtype, self.autocast, self.tf32_matmul or self.tf32_convolution)

    @property
    def backpropagation(self) -> Backpropagation:
        """How it is back-propagated.

        Raises:
            UserError: choices that don't go together.
        """
        return Backpropagation(self.strategy, self.nonreversible, self.kept_half_blocks, self.certify)  # type: ignore[arg-type]

    @property
    def schedule(self) -> Schedule:
        """How it is trained."""
        return Schedule(RECIPES[self.recipe], self.training_steps, self.optimizer, self.learning_rate)

    @property
    def device_type(self) -> str:
        """``cpu`` or ``cuda``, without the number of a GPU."""
        return self.device.partition(":")[0]

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return is_gpu(self.device)

    def replace(self, **changes: Any) -> Case:
        """Returns a copy with fields changed."""
        return dataclasses.replace(self, **changes)

    def stored(self) -> Case:
        """Returns the same case with all activations stored: what its strategy is compared with."""
        return self.replace(strategy="stored", nonreversible="kept", kept_half_blocks=0, certify=False)

    def under(self, strategy: str, nonreversible: str) -> Case:
        """Returns the same case under a strategy; what can't be reversed is always kept under ``stored``."""
        return self.replace(strategy=strategy, nonreversible="kept" if strategy == "stored" else nonreversible)

    def in_float32(self) -> Case:
        """Returns the same case in plain float32: what cases that differ in their arithmetic have in common."""
        return self.replace(dtype="float32", autocast="none", tf32_matmul=False, tf32_convolution=False)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a plain dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Case:
        """Returns the case of `to_json`; fields that this version does not know are refused.

        Raises:
            UserError: an unknown field, or a value that a field can't have.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise unknown("field of a case", name, known)
        if "model" not in fields:
            raise UserError("a case needs the field model")
        case = cls(**fields)
        case.check_fields()
        return case

    def check_fields(self) -> None:
        """Raise a `UserError` if a field has a value that it can't have, whatever the others are."""
        for field in dataclasses.fields(self):
            check_field(field.name, getattr(self, field.name))

    def check(self) -> Case:
        """Say what is wrong with this case, as far as can be told without building it.

        Returns:
            The case itself.

        Raises:
            UserError: an unknown name, a number out of range, or a strategy that the model does not support.
        """
        self.check_fields()
        strategy = self.backpropagation.strategy
        self._check_processes()
        if self.compile and strategy == "torch_budget":
            raise UserError("strategy=torch_budget compiles all units as one graph; omit compile")
        if self.factory is None:
            architecture(self.model)  # which says that it is unknown
            found = self.network
            assert found is not None
            if strategy in choices.STRATEGIES and strategy not in found.strategies:
                raise UserError(
                    f"{self.model} has no reversible block, so strategy {strategy} is not possible;"
                    f" its pair {found.pair} has them"
                )
            return self
        of_the_catalogue = (("sequence_length", "language models"), ("depth", "networks"), ("coupling", "networks"))
        for name, whose in of_the_catalogue:
            if getattr(self, name) != _FIELDS[name].default:
                raise UserError(
                    f"{name}={getattr(self, name)} is of the catalogue's {whose}; give {self.model!r} an argument"
                )
        return self

    def _check_processes(self) -> None:
        if self.batch_size % self.world_size:
            raise UserError(
                f"batch_size={self.batch_size} can't be split evenly among {self.world_size} processes;"
                f" give a multiple of {self.world_size}"
            )
        if self.sync_batch_norm and self.world_size == 1:
            raise UserError("sync_batch_norm is of several processes (torchrun); omit it")
        if self.sync_batch_norm and self.compile:
            raise UserError(
                "sync_batch_norm and compile: nobody has shown that compiled code exchanges statistics; omit one"
            )
        items = self.batch_size // self.world_size
        if self.accumulate > items:
            raise UserError(f"accumulate={self.accumulate} is more than the {items} items of a process's batch")


def is_gpu(device: str) -> bool:
    """Tells whether a device, as a case names it, is a GPU."""
    return device.startswith("cuda")


def index_in(device: str) -> int:
    """Returns the number of a GPU in its name; 0 where it has none (``cuda``)."""
    _, _, number = device.partition(":")
    return int(number) if number.isdigit() else 0


def check_field(name: str, value: Any) -> None:
    """Raise a `UserError` if a field can't have a value."""
    _FIELDS[name].metadata["bound"].check(name, value)


def about(name: str) -> str:
    """Returns what a field of a case is, as a sentence for the help of a command."""
    text: str = _FIELDS[name].metadata["about"].replace("`", "")
    return f"{text[:1].upper()}{text[1:]}."


_FIELDS = {field.name: field for field in dataclasses.fields(Case)}

# `help(Case)` says of each field what stands at it.
Case.__doc__ = f"{Case.__doc__ or ''}" + "\n".join(
    f"        {field.name}: {field.metadata['about']}." for field in _FIELDS.values()
)
