"""Why a network can't be called with a batch: which module refused it, what that takes, and what it was given.

All of it is read from the frames of the error's traceback, so that nothing has to be looked at as long as all goes well.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.observing.calling import call, goes_in_by_name, unwrapped
from revbench.observing.nested import tensors_in

_OURS = Path(__file__).parents[1]
_LETTERS, _SHOWN = 200, 8
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_LENGTHS = {1: "L", 2: "H, W", 3: "D, H, W"}


def frames_of(error: BaseException) -> list[FrameType]:
    """Returns the frames that an error went through, the one that raised it last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def refusal(error: BaseException, origin: str = "") -> str:
    """Returns what a network was given and what the module that raised an error takes.

    Empty if the error did not arise while `revbench.observing.calling.call` called a network, or if revbench itself raised it,
    whose words say all.

    Args:
        error: that was raised.
        origin: where the batch is from, in words that stand behind its shapes.

    Raises:
        Exception: whatever a stranger's module or tensor does when it is looked at.
    """
    frames = frames_of(error)
    began = next((i for i, frame in enumerate(frames) if frame.f_code is call.__code__), None)
    if began is None or Path(frames[-1].f_code.co_filename).is_relative_to(_OURS):
        return ""
    model, inputs = unwrapped(frames[began].f_locals["model"]), frames[began].f_locals["inputs"]
    batch, modules = described(inputs), _modules_in(frames[began:])
    said, batch_is_said = [], False
    if modules and (takes := _takes(modules[-1])):
        given = _given(modules[-1], frames)
        batch_is_said = given == batch
        of_it = f"the batch, {batch}{origin}" if batch_is_said else given
        said.append(f"{_name_in(model, modules[-1])} takes {takes}{f' and was given {of_it}' if of_it else ''}")
    if not batch_is_said:
        said.append(f"the batch is {batch}{origin}")
    if isinstance(inputs, Mapping) and not goes_in_by_name(model, inputs):
        said.append(f"it went in whole, since {type(model).__name__} takes ({', '.join(_arguments(model))})")
    if "device" in str(error) and (elsewhere := _elsewhere(model)):
        said.append(f"{elsewhere}; make it a buffer (register_buffer), which moves with its module")
    return "; ".join(said)


def wants_integers(error: BaseException) -> bool:
    """Tells whether an error arose in an embedding, which takes integers, whatever the dtype of other numbers is."""
    modules = _modules_in(frames_of(error))
    return bool(modules) and isinstance(modules[-1], _EMBEDDINGS)


def _modules_in(frames: Sequence[FrameType]) -> list[nn.Module]:
    """Returns the modules whose methods the frames are of, the innermost last."""
    return [one for frame in frames if isinstance(one := frame.f_locals.get("self"), nn.Module)]


def described(value: Any) -> str:
    """Returns the dtypes and shapes of tensors, in tuples, lists and mappings, in words: ``float32 (4, 3, 32, 32)``."""
    if isinstance(value, Tensor):
        where = "" if value.device.type in ("cpu", "cuda") else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{where}"
    if isinstance(value, Mapping):
        return _cut("{" + ", ".join(f"{key}: {described(one)}" for key, one in islice(value.items(), _SHOWN)) + "}")
    if isinstance(value, (tuple, list)):
        return _cut("(" + ", ".join(map(described, islice(value, _SHOWN))) + ")")
    within = ", ".join(map(described, islice(tensors_in(value), _SHOWN)))
    return _cut(f"{type(value).__name__}{f' of {within}' if within else ''}")


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _given(module: nn.Module, frames: Sequence[FrameType]) -> str:
    """Returns what a module was called with, an embedding with the range of the integers; empty if its call is not seen."""
    of_it = [frame for frame in frames if frame.f_locals.get("self") is module]
    calls = [frame for frame in of_it if frame.f_code.co_name == "_call_impl"]
    if calls:
        given = (*calls[-1].f_locals["args"], *calls[-1].f_locals["kwargs"].values())
    else:  # called without PyTorch's own call; what is no layer of PyTorch's may have bound its arguments anew
        plain = type(module).forward.__code__ if type(module).__module__.startswith("torch.nn.") else None
        given = tuple(frame.f_locals[plain.co_varnames[1]] for frame in of_it if plain and frame.f_code is plain)
        if not given:
            return ""
    words = described(given[0] if len(given) == 1 else given) if given else "nothing"
    if isinstance(module, _EMBEDDINGS) and given and isinstance(given[0], Tensor) and _can_be_read(given[0]):
        words += f" from {int(given[0].min())} to {int(given[0].max())}"
    return words


def _can_be_read(x: Tensor) -> bool:
    integers = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    return integers and x.numel() > 0 and x.device.type == "cpu" and not isinstance(x, FakeTensor)


def _name_in(model: nn.Module, module: nn.Module) -> str:
    name = next((name for name, one in model.named_modules() if one is module), "")
    return f"{name} ({type(module).__name__})" if name else type(module).__name__


def _takes(module: nn.Module) -> str:
    """Returns the shape that one of PyTorch's layers takes; of another module the arguments of its ``forward``."""
    if isinstance(module, (nn.Linear, nn.LazyLinear)):
        return f"(…, {module.in_features})"
    if isinstance(module, _EMBEDDINGS):
        return f"integers from 0 to {module.num_embeddings - 1}"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return f"(…, {', '.join(map(str, module.normalized_shape))})"
    if isinstance(module, nn.modules.conv._ConvNd):
        return f"(N, {module.in_channels}, {_LENGTHS[len(module.kernel_size)]})"
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return f"(N, {module.num_features}, …)"
    if isinstance(module, nn.GroupNorm):
        return f"(N, {module.num_channels}, …)"
    if isinstance(module, nn.RNNBase):
        return f"({'N, L' if module.batch_first else 'L, N'}, {module.input_size})"
    return f"({', '.join(_arguments(module))})"


def _arguments(module: nn.Module) -> list[str]:
    """Returns the names of what a module's ``forward`` takes, with the stars of those that take any number."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # of a function that is none of Python
        return ["…"]
    return [f"{'*' * (p.kind is p.VAR_POSITIONAL)}{'**' * (p.kind is p.VAR_KEYWORD)}{p.name}" for p in parameters]


def _elsewhere(model: nn.Module) -> str:
    """Returns which tensors that are neither parameters nor buffers lie on another device than the weights."""
    weights = {p.device.type for p in model.parameters()}
    found: Sequence[str] = [
        f"{f'{name}.{key}' if name else key} is a tensor on {value.device}"
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor) and value.dim() and weights and value.device.type not in weights
    ]
    return " and ".join(found[:3])
