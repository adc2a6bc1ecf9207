"""From a case to a model, a batch and a training step.

A workload is a network of the catalogue, or what a factory ``package.module:factory`` returns, called without arguments or with
those that the name gives (``package.module:factory(depth=9)``): a module (fed with images ``(N, 3, S, S)`` and cross-entropy),
``(module, make_batch, loss)`` or ``(module, make_batch, loss, set_strategy)``. ``make_batch(batch_size, generator)`` returns
``(inputs, targets)`` on the CPU (how the network is called with them says `revbench.observing.calling`) and ``loss(outputs,
targets)`` a scalar. The strategy is set on every `revbench.reversible` inside the module; of a network that has two ways of its
own ``set_strategy(module, strategy)`` sets ``stored`` or ``reconstructed``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop import StrategyModule, compile_pieces
from revbench.case import DEFAULT_CLASSES, DEFAULT_IMAGE_SIZE, Backpropagation, Case
from revbench.choices import STRATEGIES
from revbench.errors import UserError, first_line
from revbench.factories import SetStrategy, made_by
from revbench.models.networks import Loss, MakeBatch, batches_of, network_of, normal_images
from revbench.models.synchronised import synchronise_batch_norm
from revbench.observing.calling import call
from revbench.observing.nested import map_tensors
from revbench.observing.refusals import described, frames_of, refusal
from revbench.paper.recipes import RECIPES

OWN_WAYS = ("stored", "reconstructed")  # of a network that sets its own


@dataclass(frozen=True)
class Workload:
    """A model with all that one training step of it needs.

    Attributes:
        case: what it was built from.
        model: on the case's device and in its dtype, in training mode.
        make_batch: draws a batch on the CPU, in float32 or integers.
        loss: from the model's outputs and the targets to a scalar.
        optimizer: over the model's parameters.
        draws: whether the factory brings its own `make_batch`.
        own_setter: the factory's ``set_strategy``, of a network whose ways to back-propagate are not ours.
    """

    case: Case
    model: nn.Module
    make_batch: MakeBatch
    loss: Loss
    optimizer: torch.optim.Optimizer
    draws: bool = False
    own_setter: SetStrategy | None = None

    @property
    def own_way(self) -> dict[str, Any]:
        """Which of its own ways a network takes, and what sets it, for a comparison with `stored`; nothing of one that is
        reversible by ours, or is stored."""
        if self.own_setter is None or self.case.strategy == "stored":
            return {}
        return {"strategy": self.case.strategy, "set_strategy": self.own_setter}

    def batch(self, draw: int = 0) -> tuple[Any, Any]:
        """Returns the batch of this number: the same on every device and in every dtype."""
        generator = torch.Generator().manual_seed(self.case.seed * 1_000_003 + draw)
        return self.drawn(self.case.batch_size, generator)

    def drawn(self, count: int, generator: torch.Generator) -> tuple[Any, Any]:
        """Returns so many items that a generator on the CPU draws, on the case's device."""
        inputs, targets = self.make_batch(count, generator)
        return self.place(inputs), self.place(targets)

    def place(self, value: Any) -> Any:
        """Move tensors to the case's device, floating-point ones into its dtype and memory format.

        Args:
            value: a tensor, or tensors in tuples, lists, mappings, dataclasses (`revbench.observing.nested`).
        """
        return map_tensors(self._placed, value)

    def _placed(self, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value.to(self.case.device)
        value = value.to(self.case.device, getattr(torch, self.case.dtype))
        if value.dim() == 4 and self.case.memory_format == "channels_last":
            value = value.contiguous(memory_format=torch.channels_last)
        return value

    def forward(self, inputs: Any, targets: Any) -> Tensor:
        """Sets the gradients to None and returns the loss, computed under the case's autocast."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            return self.loss(call(self.model, inputs), targets)

    def autocast(self) -> torch.autocast:
        """Returns a context of the case's autocast."""
        autocast = self.case.autocast
        dtype = None if autocast == "none" else getattr(torch, autocast)
        return torch.autocast(self.case.device_type, dtype=dtype, enabled=autocast != "none")

    def step(self, inputs: Any, targets: Any) -> None:
        """Take one whole training step."""
        self.forward(inputs, targets).backward()
        self.optimizer.step()

    def gradient(self, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Returns the gradient of every trainable parameter by its name, before weight decay."""
        self.forward(inputs, targets).backward()
        return {n: p.grad.detach() for n, p in self.model.named_parameters() if p.grad is not None}


def refused(error: BaseException, workload: Workload | None = None) -> str:
    """Returns what is to be known of an error that a network, or its loss, answered a batch with: `refusal`, what the loss was
    given, and where the batch is from; empty of any other error.

    Args:
        error: that was raised.
        workload: whose network it is, if no frame of the error's traceback has it.
    """
    try:
        return _refused(error, workload)
    except Exception:  # what is looked at is a stranger's, and may do anything: the error itself must not be lost
        return ""


def error_line(error: BaseException) -> str:
    """Returns an error's type, its first line and what is to be known of it (`refused`), in one line."""
    why = refused(error)
    return f"{type(error).__name__}: {first_line(error)[:300]}{f'; {why}' if why else ''}"


def _refused(error: BaseException, workload: Workload | None) -> str:
    frames = frames_of(error)
    workload = next((v for frame in frames for v in frame.f_locals.values() if type(v) is Workload), workload)
    for frame in frames:
        if frame.f_code is taken_of.__code__:
            outputs, targets = (frame.f_locals[name] for name in ("outputs", "targets"))
        elif workload is not None and frame.f_locals.get("self") is workload.loss and "args" in frame.f_locals:
            outputs, targets = frame.f_locals["args"]
        else:
            continue
        return f"the loss was given outputs {described(outputs)} and targets {described(targets)}"
    return refusal(error, "" if workload is None or workload.case.factory is None else _origin(workload))


def _origin(workload: Workload) -> str:
    data = workload.case.data
    if workload.case.training_steps and data != "factory":
        mend = (
            "train on what its make_batch draws: --data factory" if workload.draws else "bring a make_batch of its own"
        )
        return f" (of the data {data}; {mend})"
    if workload.draws:
        return ""
    return " (standard normal images, since the factory brings no make_batch; let it return (module, make_batch, loss))"


def build_workload(case: Case) -> Workload:
    """Build what a case names.

    Weights are drawn in float32 on the CPU from the case's seed, then moved: they are the same on
    every device and, up to rounding, in every dtype.

    Raises:
        UserError: a case that `Case.check` refuses, a factory that can't be imported or returns no module.
    """
    case.check()
    torch.manual_seed(case.seed)
    draws, own_setter = False, None
    if case.factory is not None:
        model, own_batch, loss, own_setter = made_by(case.model, case.factory)
        draws = own_batch is not None
        size, classes = case.image_size or DEFAULT_IMAGE_SIZE, case.num_classes or DEFAULT_CLASSES
        make_batch = own_batch or normal_images(size, classes)
        if not isinstance(loss, nn.Module):  # a module is one that a reference converts, and has a call of its own
            loss = functools.partial(taken_of, loss)
    else:
        found = case.network
        assert found is not None
        model = network_of(found, found.default_strategy)
        make_batch, loss = batches_of(found)
    if any(p.device.type == "meta" for p in model.parameters()):
        raise UserError(
            f"model {case.model!r} has weights on the device meta, where they have no values; make it on the CPU"
        )
    if case.sync_batch_norm:
        model = synchronise_batch_norm(model, case.device)
    _move(model, case)
    if case.ulp:
        move_by_one_ulp(model, case.ulp)
    chains = set_strategy(model, case, own_setter)
    if case.compile:
        for chain in chains:
            chain.compile_pieces()
        if not chains:
            compile_pieces([model])
    return Workload(case, model.train(), make_batch, loss, make_optimizer(case, model), draws, own_setter)


def taken_of(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    """Returns a factory's loss; `refused` looks for this frame."""
    return loss(outputs, targets)


def set_strategy(model: nn.Module, case: Case, own_setter: SetStrategy | None = None) -> list[StrategyModule]:
    """Set a case's strategy, and what goes with it, on everything inside a model that has one.

    Args:
        model, case: what and which.
        own_setter: of a network whose ways are not ours; it is called with the strategy's name alone.

    Returns:
        All that has one of ours.

    Raises:
        UserError: a strategy that is not supported.
    """
    if own_setter is not None:
        _set_by(own_setter, model, case)
        return []
    chains = [module for module in model.modules() if isinstance(module, StrategyModule)]
    if not chains and case.strategy != "stored":
        raise UserError(f"model {case.model!r} has no revbench.reversible inside; only strategy stored is possible")
    for chain in chains:
        chain.backpropagation = case.backpropagation
    return chains


def _set_by(own_setter: SetStrategy, model: nn.Module, case: Case) -> None:
    if case.strategy not in OWN_WAYS or case.backpropagation != Backpropagation(case.strategy):  # type: ignore[arg-type]
        raise UserError(
            f"model {case.model!r} sets its own ways, {' and '.join(OWN_WAYS)}; strategy={case.strategy} and what goes with ours"
            " are not among them"
        )
    try:
        own_setter(model, case.strategy)
    except Exception as error:
        raise UserError(
            f"the set_strategy of model {case.model!r} failed for {case.strategy!r}: {type(error).__name__}: {first_line(error)}"
        ) from error


def supported_strategies(workload: Workload) -> tuple[str, ...]:
    """Returns those of our own strategies that everything inside a model supports; ``stored`` alone where nothing has one, and of
    a network that sets its own ways those two."""
    if workload.own_setter is not None:
        return OWN_WAYS
    model = workload.model
    chains = [module.strategies for module in model.modules() if isinstance(module, StrategyModule)]
    return tuple(s for s in STRATEGIES if s == "stored" or (chains and all(s in chain for chain in chains)))


def _move(model: nn.Module, case: Case) -> None:
    """Move a model to a case's device, dtype and memory format.

    A fake one slot by slot, and on the CPU, where it is: `nn.Module.to` swaps tensors, which PyTorch refuses for those
    that it has references to.
    """
    dtype: torch.dtype = getattr(torch, case.dtype)
    layout = torch.channels_last if case.memory_format == "channels_last" else torch.preserve_format
    if not any(isinstance(p, FakeTensor) for p in model.parameters()):
        model.to(case.device, dtype)
        if layout is torch.channels_last:
            model.to(memory_format=layout)
        return
    moved: dict[Tensor, Tensor] = {}  # a parameter that stands in two places stays one
    for module in model.modules():
        for slots in (module._parameters, module._buffers):
            for key, old in slots.items():
                wanted = dtype if old is not None and old.is_floating_point() else None
                if old is None or (layout is torch.preserve_format and wanted in (None, old.dtype)):
                    continue
                if old not in moved:
                    shape = layout if old.dim() == 4 else torch.preserve_format
                    new = old.detach().to(case.device, wanted, memory_format=shape)
                    moved[old] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                slots[key] = moved[old]  # type: ignore[assignment]


def make_optimizer(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW with weight decay on weights only: tensors of two dimensions or more.

    Weights whose gradients are sparse have neither decay, which PyTorch refuses, nor momentum, which would grow with each step.

    Raises:
        NotImplementedError: AdamW for a network with sparse gradients.
    """
    recipe = RECIPES[case.recipe]
    sparse = sparse_weights(model)
    if sparse and case.optimizer == "adamw":
        raise NotImplementedError("AdamW takes no sparse gradients, which this network's embeddings give; use sgd")
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in parameters if p.dim() >= 2 and id(p) not in sparse],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    if sparse:
        groups.append({"params": [p for p in parameters if id(p) in sparse], "weight_decay": 0.0, "momentum": 0.0})
    rate = case.schedule.first_learning_rate
    if case.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum)


def sparse_weights(model: nn.Module) -> set[int]:
    """Returns the ``id`` of each weight whose gradient is sparse: of embeddings that were asked for that."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return {id(module.weight) for module in model.modules() if isinstance(module, kinds) and module.sparse}


@torch.no_grad()
def move_by_one_ulp(model: nn.Module, number: int) -> None:
    """Move one element of the first weight up by one unit in the last place, the null of a comparison.

    Not of an embedding, whose first rows are of tokens that may never occur, unless there is no other weight.
    """
    weights = [p for p in model.parameters() if p.dim() >= 2]
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    weight = next((p for p in weights if id(p) not in embedded), weights[0])
    place = torch.unravel_index(torch.tensor(number % weight.numel()), weight.shape)  # in whatever order memory is
    weight[place] = torch.nextafter(weight[place], torch.full_like(weight[place], torch.inf))
