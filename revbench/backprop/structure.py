"""What a module is made of: what is the same at each call, unless somebody changes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from revbench.backprop.plain import is_plain, may_draw
from revbench.backprop.replay import StandIns

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip
CALLED_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # without keywords
HELD = ("_modules", "_parameters", "_buffers")
_suspect_kinds: WeakKeyDictionary[type, bool] = WeakKeyDictionary()  # may they be refused?


class Structure:
    """The modules of one function, and what they hold.

    Args:
        module: the function.
        name: how errors call it.

    Raises:
        RuntimeError: a module that can't be run twice.

    Attributes:
        modules: all of them, each once.
        kinds: their classes.
        attributes: their ``__dict__``, with the dicts of parameters, buffers and layers copied.
        parameters: each once, with the module and the key where it was found.
        plain: whether all are PyTorch's own layers in `nn.Sequential`, without hooks (`revbench.backprop.plain`).
        compiled: whether a part of it is compiled.
        may_draw: whether it may draw random numbers.
        stand_ins: what is called in place of its batch norms and ReLUs; compiled code computes its own.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.modules = _walk(module)
        _refuse_what_cant_run_twice(self.modules, name)
        self.kinds = [type(module) for module in self.modules]
        self._methods = [(kind, _methods_of(kind)) for kind in dict.fromkeys(self.kinds)]
        hooked = any(any(module.__dict__[key] for key in CALLED_HOOKS) for module in self.modules)
        self.plain = not hooked and all(map(is_plain, self.modules))
        self.attributes = [copied(module, HELD) for module in self.modules]
        # What hangs where, by identity: `==` would compare tensors of one number by value, and forget the order of layers.
        self._held = [
            (module, key, list(map(id, attributes[key].values())))
            for module, attributes in zip(self.modules, self.attributes, strict=True)
            for key in HELD
            if attributes[key]
        ]
        found = [
            (parameter, owner, key)
            for owner, attributes in zip(self.modules, self.attributes, strict=True)
            for key, parameter in attributes["_parameters"].items()
            if parameter is not None
        ]
        self.parameters: list[tuple[nn.Parameter, nn.Module, str]] = list(
            {id(p[0]): p for p in reversed(found)}.values()
        )[::-1]
        # `_orig_mod`: what `torch.compile` calls the module that it wraps.
        self.compiled = any(m._compiled_call_impl is not None or "_orig_mod" in m._modules for m in self.modules)
        self.may_draw = not self.plain or any(map(may_draw, self.modules))
        layers = _layers(module) if self.plain and not self.compiled else None
        self.stand_ins = StandIns(() if self.compiled else self.modules, layers)

    def holds(self) -> bool:
        """Tells whether the modules of a plain function are what they were and hold what they held."""
        try:
            same = all(
                type(module) is kind and module.__dict__ == before and not any(map(before.__getitem__, CALLED_HOOKS))
                for module, kind, before in zip(self.modules, self.kinds, self.attributes, strict=True)
            )
        except Exception:  # an attribute that can't be compared was replaced
            return False
        return (
            same
            and all(_methods_of(kind) == methods for kind, methods in self._methods)
            and all(list(map(id, module.__dict__[key].values())) == held for module, key, held in self._held)
        )


class Structures:
    """The structures of a network's plain functions, by name, so that they need not be looked at anew at each call."""

    def __init__(self) -> None:
        self._known: dict[str, Structure] = {}

    def of(self, module: nn.Module, name: str) -> Structure:
        """That of a module as it is now.

        Raises:
            RuntimeError: a module that can't be run twice.
        """
        known = self._known.get(name)
        if known is not None and known.modules[0] is module and known.holds():
            return known
        found = Structure(module, name)
        if found.plain:
            self._known[name] = found
        else:
            self._known.pop(name, None)
        return found

    def __reduce__(self) -> tuple[type[Structures], tuple[()]]:  # a copy of the network finds its own
        return Structures, ()


def _methods_of(kind: Any) -> tuple[Any, ...]:
    return kind.forward, kind.__call__, getattr(kind, "__iter__", None)


def _layers(module: nn.Module) -> list[nn.Module] | None:
    """Returns the layers that plain modules call, one after the other; None if a container does more than that."""
    if type(module).forward is not nn.Sequential.forward:
        return None if module._modules else [module]
    found: list[nn.Module] = []
    for child in module._modules.values():
        layers = _layers(child) if child is not None else None
        if layers is None:
            return None
        found += layers
    return found


def copied(module: nn.Module, keys: Sequence[str]) -> dict[str, Any]:
    """Returns a module's ``__dict__``, with the dicts at these keys copied."""
    attributes = dict(module.__dict__)
    for key in keys:
        attributes[key] = attributes[key].copy()
    return attributes


def _walk(root: nn.Module) -> list[nn.Module]:
    """Goes through `nn.Module.modules`, without the names that it builds for each."""
    found: dict[nn.Module, None] = {}
    pending = [root]
    while pending:
        module = pending.pop()
        if module not in found:
            found[module] = None
            pending += [child for child in module._modules.values() if child is not None]
    return list(found)


def _refuse_what_cant_run_twice(modules: Sequence[nn.Module], name: str) -> None:
    for module in modules:
        kind = type(module)
        if kind not in _suspect_kinds:
            bases = [base.__name__ for base in kind.__mro__]
            _suspect_kinds[kind] = any(base in bases for base in ("ScriptModule", "LazyModuleMixin", "FSDPModule"))
        if _suspect_kinds[kind]:
            _refuse(module, name)


def _refuse(module: nn.Module, name: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise RuntimeError(f"{name} holds a ScriptModule, which can't be run again; set strategy 'stored'")
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        if module.has_uninitialized_params():
            raise RuntimeError(
                f"{name} holds a {type(module).__name__}, which has no parameters yet; call the model once under"
                " torch.no_grad() before"
            )
        return
    raise RuntimeError(
        f"{name} is sharded by itself (fully_shard), so its parameters change between forward and backward; shard the"
        " whole chain instead, or set strategy 'stored'"
    )
