"""Why a network can't be called with a batch: which module refused it, what that takes, and what it was given.

All of it is read from the frames of the error's traceback, so that nothing has to be looked at as long as all goes well.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.observing.calling import call
from revbench.observing.nested import tensors_in

_OURS = Path(__file__).parents[1]
_LETTERS = 200
_CALLS = ("forward", "_call_impl")
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_LENGTHS = {1: "L", 2: "H, W", 3: "D, H, W"}


def frames_of(error: BaseException) -> list[FrameType]:
    """Returns the frames that an error went through, the one that raised it last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def refusal(error: BaseException) -> str:
    """Returns what a network was given and what the module that raised an error takes.

    Empty if the error did not arise while `revbench.observing.calling.call` called a network, or if revbench itself raised it,
    whose words say all.
    """
    frames = frames_of(error)
    began = next((i for i, frame in enumerate(frames) if frame.f_code is call.__code__), None)
    if began is None or Path(frames[-1].f_code.co_filename).is_relative_to(_OURS):
        return ""
    model, inputs = (frames[began].f_locals[name] for name in ("model", "inputs"))
    inside = [frame for frame in frames[began:] if isinstance(frame.f_locals.get("self"), nn.Module)]
    said, batch = [], described(inputs)
    if inside:
        module = inside[-1].f_locals["self"]
        of_it = [frame for frame in inside if frame.f_locals["self"] is module and frame.f_code.co_name in _CALLS]
        given = _given(of_it[-1]) if of_it else batch
        takes = _takes(module)
        if takes:
            said.append(
                f"{_name_in(model, module)} takes {takes} and was given {'the batch, ' * (given == batch)}{given}"
            )
    if not said or not said[0].endswith(f"the batch, {batch}"):
        said.append(f"the batch is {batch}")
    if isinstance(inputs, Mapping) and not set(inputs) <= set(_arguments(model)):
        said.append(
            f"it went in whole, since {type(model).__name__} takes ({', '.join(_arguments(model))}) and no such names"
        )
    elsewhere = _elsewhere(model)
    if elsewhere:
        said.append(f"{elsewhere}; make it a buffer (register_buffer), which moves with its module")
    return "; ".join(said)


def wants_integers(error: BaseException) -> bool:
    """Tells whether an error arose in an embedding, which takes integers, whatever the dtype of other numbers is."""
    modules = [
        frame.f_locals["self"] for frame in frames_of(error) if isinstance(frame.f_locals.get("self"), nn.Module)
    ]
    return bool(modules) and isinstance(modules[-1], _EMBEDDINGS)


def described(value: Any) -> str:
    """Returns the dtypes and shapes of tensors, in tuples, lists and mappings, in words: ``float32 (4, 3, 32, 32)``."""
    if isinstance(value, Tensor):
        where = "" if value.device.type in ("cpu", "cuda") else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{where}"
    if isinstance(value, Mapping):
        return _cut("{" + ", ".join(f"{key}: {described(one)}" for key, one in value.items()) + "}")
    if isinstance(value, (tuple, list)):
        return _cut("(" + ", ".join(map(described, value)) + ")")
    within = ", ".join(map(described, tensors_in(value)))
    return _cut(f"{type(value).__name__}{f' of {within}' if within else ''}")


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _given(frame: FrameType) -> str:
    """Returns what the module of a frame was called with; an embedding with the range of the integers."""
    values = inspect.getargvalues(frame)
    if "args" in values.locals and values.varargs == "args":  # PyTorch's own call of a module
        given = (*values.locals["args"], *values.locals.get("kwargs", {}).values())
    else:
        given = tuple(values.locals.get(name) for name in values.args if name != "self")
    given = tuple(value for value in given if value is not None)
    module = values.locals["self"]
    if type(module).__module__.startswith("torch.nn."):
        given = given[:1]  # the others may be what it made of them
    words = described(given[0] if len(given) == 1 else given) if given else "nothing"
    if isinstance(module, _EMBEDDINGS) and isinstance(given[0], Tensor) and _can_be_read(given[0]):
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
    channels = getattr(module, "in_channels", getattr(module, "num_features", getattr(module, "num_channels", None)))
    if isinstance(module, (nn.Linear, nn.LazyLinear)):
        return f"(…, {module.in_features})"
    if isinstance(module, _EMBEDDINGS):
        return f"integers from 0 to {module.num_embeddings - 1}"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return f"(…, {', '.join(map(str, module.normalized_shape))})"
    if isinstance(module, nn.modules.conv._ConvNd):
        return f"(N, {channels}, {_LENGTHS[len(module.kernel_size)]})"
    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        return f"(N, {channels}, …)"
    if isinstance(module, nn.RNNBase):
        return f"({'N, L' if module.batch_first else 'L, N'}, {module.input_size})"
    if type(module).__module__.startswith("torch.nn."):
        return ""
    return f"({', '.join(_arguments(module))})"


def _arguments(module: nn.Module) -> list[str]:
    """Returns what a module's ``forward`` takes, each as it is declared."""
    try:
        return [
            str(p).partition(":")[0].partition("=")[0] for p in inspect.signature(module.forward).parameters.values()
        ]
    except (TypeError, ValueError):  # of a function that is none of Python
        return ["…"]


def _elsewhere(model: nn.Module) -> str:
    """Returns which tensors that are neither parameters nor buffers lie on another device than the weights."""
    weights = {p.device.type for p in model.parameters()}
    found: Sequence[str] = [
        f"{f'{name}.{key}' if name else key} is a tensor on {value.device}"
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor) and weights and value.device.type not in weights
    ]
    return " and ".join(found[:3])
