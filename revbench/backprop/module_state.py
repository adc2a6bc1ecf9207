"""What the modules of one function hold, taken before a call, so that a later call finds it again and leaves no trace.

For the later call each module's ``__dict__`` is exchanged for a shadow of the one that it had before the first: the same
attributes, layers and hooks, aliases for its parameters, and copies of what the first call wrote. Whatever the later call
sets lands in the shadow and is dropped with it.

A tensor that the first call may write must be copied before it, and PyTorch's version counters do not tell (``.data``, kernels
of batch norm). So what a module does with a large tensor is learned from its first call, in which a copy is taken and
compared afterwards: one that was written is copied at each later call, one that was only read is not. Small ones are
always copied, so that a change before backward does not matter either.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop.copies import (
    CONSTANT,
    CONTAINERS,
    COPIED,
    address_of,
    alias,
    same_bits,
    value_of,
    version_of,
    with_attributes,
    with_stand_ins,
)  # fmt: skip
from revbench.backprop.structure import CALLED_HOOKS, HELD, HOOKS, Structure, copied

_SMALL = 4096  # numbers in a buffer or attribute that is copied whether anybody writes it or not
_LONGEST = 4096  # entries of a list or dict, numbers of a NumPy array, that are copied
_INTERNAL = frozenset(vars(nn.Module()))


@dataclass(slots=True)
class _Tensor:
    """A tensor that a module holds, before and after the first call.

    Attributes:
        tensor: itself.
        owner, key: where it was found; the key names it in errors.
        kind: ``parameter``, ``buffer`` or ``attribute``.
        copy: its value before the call, if it was taken and is needed.
        doubtful: the copy is there to see whether the call writes the tensor.
        version, address: after the call, of one without a copy.
        lost: the call wrote it, though earlier ones had not, and no copy was taken.
    """

    tensor: Tensor
    owner: nn.Module
    key: str
    kind: str
    copy: Tensor | None
    doubtful: bool
    version: int
    address: int
    lost: bool = False


class _Written:
    """What is known of a tensor that a module's calls write."""


# Of each module, by key: the address of a tensor that its calls only read, or that they write it.
_known: WeakKeyDictionary[nn.Module, dict[str, int | type[_Written]]] = WeakKeyDictionary()


class ModuleState:
    """The state of modules before a call; see the file's head.

    Args:
        structure: of the function; of a plain one as it is now.
        plain: none of its modules writes a parameter or sets an attribute (`revbench.backprop.plain`).
        untouched: those whose buffers no later call reads or changes.
        name: how errors call the function.

    Raises:
        RuntimeError: a buffer that needs gradient, which would be lost.

    Attributes:
        parameters: those of the modules, each once.
    """

    def __init__(self, structure: Structure, *, plain: bool, untouched: frozenset[nn.Module], name: str) -> None:
        self._name = name
        self._structure, self._plain = structure, plain
        self._modules = structure.modules
        self._only_read: list[tuple[Tensor, int, int, nn.Module, str]] = []  # the parameters of plain modules
        self._tensors: dict[int, _Tensor] = {}
        self._copied: dict[int, tuple[Any, Any]] = {}  # by the id of a container: itself, and what it held
        self._attributes = structure.attributes if plain else [copied(m, (*HELD, *HOOKS)) for m in self._modules]
        if plain:
            self._only_read = [(p, p._version, address_of(p), owner, key) for p, owner, key in structure.parameters]
            self.parameters = [parameter for parameter, _, _ in structure.parameters]
        else:
            self.parameters = self._take_parameters()
        for module, attributes in zip(self._modules, self._attributes, strict=True):
            if attributes["_buffers"] and module not in untouched:
                self._take_buffers(module, attributes["_buffers"])
            if not plain:
                self._take_attributes(module, attributes)
        self._needs_gradient = [parameter.requires_grad for parameter in self.parameters]

    def _take_parameters(self) -> list[nn.Parameter]:
        found: dict[int, nn.Parameter] = {}
        for module, attributes in zip(self._modules, self._attributes, strict=True):
            for key, parameter in attributes["_parameters"].items():
                if parameter is not None and id(parameter) not in found:
                    found[id(parameter)] = parameter
                    self._hold(parameter, module, key, "parameter")
        return list(found.values())

    def _take_buffers(self, module: nn.Module, buffers: Mapping[str, Tensor | None]) -> None:
        for key, buffer in buffers.items():
            if buffer is not None:
                self._refuse_gradient(key, buffer)
                self._hold(buffer, module, key, "buffer")

    def _take_attributes(self, module: nn.Module, attributes: dict[str, Any]) -> None:
        for key, value in attributes.items():
            if key not in _INTERNAL:
                self._take(value, module, key, set())

    def _take(self, value: Any, owner: nn.Module, key: str, outer: set[int]) -> bool:
        """Take one value of an attribute, and what it contains before it; whether anything was taken.

        Args:
            value: of the attribute, or an entry of it.
            owner, key: where it was found.
            outer: the containers that it is in, by ``id``.
        """
        kind = type(value)
        if isinstance(value, Tensor):
            self._hold(value, owner, key, "attribute")
            return True
        if kind in CONTAINERS and len(value) <= _LONGEST and id(value) not in outer:
            outer = {*outer, id(value)}
            entries = value.values() if isinstance(value, dict) else value
            some = [self._take(entry, owner, key, outer) for entry in entries if type(entry) not in CONSTANT]
            if kind is not tuple or any(some):
                self._copied.setdefault(id(value), (value, CONTAINERS[kind](value)))
                return True
        elif kind in COPIED and getattr(value, "size", 0) <= _LONGEST:
            self._copied.setdefault(id(value), (value, COPIED[kind](value)))
            return True
        return False

    def _hold(self, tensor: Tensor, owner: nn.Module, key: str, kind: str) -> None:
        if id(tensor) in self._tensors:
            return
        version, address = version_of(tensor), address_of(tensor)
        taken, doubtful = None, False
        known = _known.get(owner, {}).get(key) if not isinstance(tensor, FakeTensor) else address
        if (tensor.numel() <= _SMALL and not tensor.requires_grad) or known is _Written:
            taken = value_of(tensor)
        elif (known != address and not tensor.requires_grad) or (known is None and kind == "parameter"):
            taken, doubtful = value_of(tensor), True
        self._tensors[id(tensor)] = _Tensor(tensor, owner, key, kind, taken, doubtful, version, address)

    def _refuse_gradient(self, key: str, buffer: Tensor) -> None:
        if buffer.requires_grad:
            raise RuntimeError(
                f"the buffer {key!r} of {self._name} needs gradient, which would be lost; make it a parameter, pass it"
                f" through the stream or as chain(x, {key}=…), or set strategy 'stored'"
            )

    def settle(self) -> None:
        """See right after the call what it wrote, and drop the copies of what it did not."""
        for held in self._tensors.values():
            version = version_of(held.tensor)
            moved = version != held.version
            if held.doubtful:
                assert held.copy is not None
                written = moved or not same_bits(held.copy, held.tensor)
                _known.setdefault(held.owner, {})[held.key] = _Written if written else held.address
                if not written:
                    held.copy = None
            elif held.copy is None and moved:
                if isinstance(held.tensor, FakeTensor):
                    held.copy = value_of(held.tensor)  # of its shape alone
                else:
                    _known.setdefault(held.owner, {})[held.key] = _Written
                    held.lost = True
            held.version = version

    def refuse_new(self) -> None:
        """Raise right after the call if it made a parameter that needs gradient, of which no node knows.

        Raises:
            RuntimeError: it did, or a layer with one.
        """
        made: list[nn.Parameter] = []
        for module, before in zip(self._modules, self._attributes, strict=True):
            there = before["_parameters"]
            made += (p for key, p in module._parameters.items() if p is not None and there.get(key) is None)
            for key, child in module._modules.items():
                if child is not None and before["_modules"].get(key) is None:
                    made += child.parameters()
        if any(parameter.requires_grad for parameter in made):
            raise RuntimeError(
                f"{self._name} made a parameter or a layer in this call, whose gradient would be lost; call the model once"
                " under torch.no_grad() before"
            )

    def versions(self) -> list[int]:
        """Returns the versions of the tensors that are held, now."""
        return [version_of(held.tensor) for held in self._tensors.values()]

    def check_left_alone(self, versions: Sequence[int]) -> None:
        """Raise after a later call, which wrote into shadows, if it reached what is behind them all the same.

        Args:
            versions: before that call.

        Raises:
            RuntimeError: it wrote a tensor of a module, and by another way than the module.
        """
        for held, version in zip(self._tensors.values(), versions, strict=True):
            if version_of(held.tensor) != version:
                raise RuntimeError(
                    f"{self._name} writes its {held.kind} {held.key!r} (shape {tuple(held.tensor.shape)}) by another way than the"
                    " module that holds it (an object, a bound method, a module in a list), so backward wrote it a second time;"
                    " write it as self.name, or set strategy 'stored'"
                )

    def check_unchanged(self) -> None:
        """Raise if something that the first call used was changed since and can't be put back."""
        for tensor, version, address, owner, key in self._only_read:
            if tensor._version != version or address_of(tensor) != address:
                self._refuse_change(_Tensor(tensor, owner, key, "parameter", None, False, version, address))
        for held in self._tensors.values():
            if held.copy is None:
                self._refuse_change(held)
        if not self._plain:
            self._refuse_removed_parametrizations()

    def _refuse_removed_parametrizations(self) -> None:
        for module, kind, attributes in zip(self._modules, self._structure.kinds, self._attributes, strict=True):
            if (
                type(module) is not kind and "parametrizations" in attributes["_modules"]
            ):  # its class lacks the weight now
                raise RuntimeError(
                    f"a parametrization in {self._name} was removed between forward and backward; remove it after backward"
                )

    def is_there(self) -> bool:
        """Tells whether plain modules hold exactly what they held, and a later call would leave no trace in it: then it needs no
        shadows, and the gradient of a parameter can be had without an alias.
        """
        if not self._plain or self._tensors or not self._structure.holds():
            return False
        return self.parameters_are_there()

    def parameters_are_there(self) -> bool:
        """Tells whether the parameters of plain modules are those of the first call, and nothing acts on their gradients."""
        return all(owner._parameters.get(key) is tensor for tensor, _, _, owner, key in self._only_read) and not any(
            parameter._backward_hooks or not parameter.is_leaf or parameter.requires_grad != need
            for parameter, need in zip(self.parameters, self._needs_gradient, strict=True)
        )

    def shadows(self) -> tuple[list[tuple[type[nn.Module], dict[str, Any]]], dict[int, Tensor]]:
        """Returns what the modules' class (parametrizations change it) and ``__dict__`` must be for the later call.

        Returns:
            Both for each module, and the alias that stands in for each parameter, by the parameter's ``id``: what to
            differentiate with respect to.
        """
        stand_ins = self._stand_ins()
        aliases = {id(parameter): stand_ins[id(parameter)] for parameter in self.parameters}
        shadows = [self._shadow(attributes, stand_ins) for attributes in self._attributes]
        return list(zip(self._structure.kinds, shadows, strict=True)), aliases

    def _stand_ins(self) -> dict[int, Any]:
        """Returns what the later call finds in place of tensors and containers, by the ``id`` of the one that was there."""
        found: dict[int, Any] = {}
        for identity, held in self._tensors.items():
            if held.copy is not None:
                found[identity] = with_attributes(held.tensor, held.copy.clone())
        for identity, held in self._tensors.items():  # what lies on the memory of another lies on that of its stand-in
            base = held.tensor._base if identity in found else None
            if base is not None and id(base) in found:
                offset = held.tensor.storage_offset() - base.storage_offset()
                found[identity] = found[id(base)].as_strided(held.tensor.shape, held.tensor.stride(), offset)
        for parameter, need in zip(self.parameters, self._needs_gradient, strict=True):
            found[id(parameter)] = alias(parameter, found.get(id(parameter), parameter), need)
        for identity, (_, container) in self._copied.items():
            found[identity] = with_stand_ins(container, found)
        return found

    def _shadow(self, attributes: dict[str, Any], stand_ins: Mapping[int, Any]) -> dict[str, Any]:
        shadow = dict(attributes)
        shadow["_parameters"] = {key: stand_ins.get(id(p)) for key, p in shadow["_parameters"].items()}
        shadow["_buffers"] = {key: stand_ins.get(id(b), b) for key, b in shadow["_buffers"].items()}
        shadow["_modules"] = shadow["_modules"].copy()
        if self._plain:
            if any(shadow[key] for key in CALLED_HOOKS):
                shadow |= {key: collections.OrderedDict() for key in HOOKS}  # set since the first call, which had none
        else:
            for key in HOOKS:
                shadow[key] = shadow[key].copy()
            shadow |= {
                key: stand_ins[id(value)]
                for key, value in attributes.items()
                if id(value) in stand_ins and key not in _INTERNAL
            }
        return shadow

    def _refuse_change(self, held: _Tensor) -> None:
        what = f"the {held.kind} {held.key!r} of {self._name} (shape {tuple(held.tensor.shape)})"
        if held.lost:
            raise RuntimeError(
                f"{what} was written by this call of it and by none before, so its earlier value is not known; run the step"
                " again, or set strategy 'stored'"
            )
        if version_of(held.tensor) != held.version:
            raise RuntimeError(
                f"{what} was changed in place between its use in forward and backward, so its gradient can't be computed;"
                " change it after backward"
            )
        if address_of(held.tensor) != held.address:
            raise RuntimeError(
                f"the data of {what.removeprefix('the ')} was replaced (by `.data = …`) between its use in forward and"
                " backward, so its gradient can't be computed; replace it after backward"
            )

    def attribute_of(self, nodes: set[Any], leaf: Tensor) -> str | None:
        """Returns the attribute that holds this leaf, or a tensor made by one of these nodes of a graph, if there is one."""
        for held in self._tensors.values():
            if held.kind == "attribute" and (held.tensor is leaf or held.tensor.grad_fn in nodes):
                owner = type(held.owner).__name__
                return f"the attribute {held.key!r} of its {owner}, a tensor of shape {tuple(held.tensor.shape)}"
        return None


def forget(modules: Sequence[nn.Module]) -> None:
    """Take nothing for known of these modules: their next call is looked at as their first."""
    for module in modules:
        _known.pop(module, None)
