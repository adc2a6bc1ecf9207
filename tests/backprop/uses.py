"""The uses that PyTorch allows of a module, tried on a chain of any library and compared with plain autograd.

``python -m tests.backprop.uses`` prints the table of docs/compared.md, trying every installed library, each use in a
process of its own, since some end in a segmentation fault.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from revbench import reversible
from revbench.choices import PEERS
from revbench.peers import PeerChain
from tests.backprop.chains import relative_difference

Found = list[Tensor | None]
RIGHT, ERROR, WRONG, TRACE = "right", "one clear error", "**wrong, silent**", "**leaves a trace**"


def function(*, dropout: bool = False) -> nn.Module:
    layers = [nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*layers, nn.Dropout(0.5)) if dropout else nn.Sequential(*layers)


def chain(library: str, *, blocks: int = 3, double: bool = True, **options: Any) -> nn.Module:
    """On 8 channels, one tensor in, one out."""
    torch.manual_seed(0)
    pairs = [(function(**options), function(**options)) for _ in range(blocks)]
    made: nn.Module
    if library in PEERS:
        made = PeerChain(library, pairs)
    else:
        made = reversible(pairs, strategy="stored" if library == "stored" else "reconstructed")
    return made.double() if double else made


def images(seed: int = 1, *, gradient: bool = False) -> Tensor:
    x = torch.randn(4, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.requires_grad_(gradient)


def weight() -> Tensor:
    return images(9)


def gradients(model: nn.Module) -> Found:
    return [p.grad for p in model.parameters()]


def trunk(x: Tensor) -> Tensor:
    """A tensor that is no leaf, as a stem makes it."""
    return x * 1.5


def running_statistics(library: str) -> Found:
    model = chain(library)
    (model(trunk(images(gradient=True))) * weight()).sum().backward()
    return [buffer.double() for name, buffer in model.named_buffers()]


def dropout(library: str) -> Found:
    model = chain(library, dropout=True)
    torch.manual_seed(3)
    (model(trunk(images(gradient=True))) * weight()).sum().backward()
    return gradients(model)


def autocast(library: str) -> Found:
    model, x = chain(library).float(), images().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(trunk(x.requires_grad_()).bfloat16())
    (out.float() * weight().float()).sum().backward()
    return gradients(model)


def input_without_gradient(library: str) -> Found:
    model, x, scale = chain(library), images(), torch.ones((), dtype=torch.float64, requires_grad=True)
    (model(x) * weight() * scale).sum().backward()
    return [*gradients(model), scale.grad, x]


def leaf_input(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    (model(x) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def input_used_elsewhere(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    h = trunk(x)
    (model(h) * weight() + h.sin() * h).sum().backward()
    return [*gradients(model), x.grad]


def output_used_elsewhere(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    y = model(trunk(x))
    (y * weight() + y.sin() * y).sum().backward()
    return [*gradients(model), x.grad]


def output_changed_in_place(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    y = model(trunk(x))
    y.mul_(2.0)
    (y * weight()).sum().backward()
    return [*gradients(model), x.grad]


def autograd_grad(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    wanted = [x, *model.parameters()]
    return list(torch.autograd.grad((model(trunk(x)) * weight()).sum(), wanted))


def create_graph(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    loss = (model(trunk(x)) * weight()).sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + first.square().sum()).backward()  # a gradient penalty
    return [*gradients(model), x.grad]


def retain_graph(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    loss = (model(trunk(x)) * weight()).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return [*gradients(model), x.grad]


def compiled(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    torch._dynamo.reset()
    whole = torch.compile(nn.Sequential(nn.Identity(), model), backend="aot_eager")
    (whole(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def flop_counter(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    with FlopCounterMode(display=False):
        (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def frozen_parameters(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    for parameter in list(model.parameters())[:7]:
        parameter.requires_grad_(False)
    (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def all_but_the_last_frozen(library: str) -> Found:
    model, scale = chain(library), torch.ones((), dtype=torch.float64, requires_grad=True)
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(False)
    (model(images()) * weight() * scale).sum().backward()
    return [*gradients(model), scale.grad]


def evaluation(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    model(trunk(x)).sum().backward()
    model.eval().zero_grad()
    x.grad = None
    (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def without_gradient(library: str) -> Found:
    model = chain(library)
    with torch.no_grad():
        return [model(trunk(images())), model.eval()(trunk(images()))]


def accumulation(library: str) -> Found:
    model = chain(library)
    for seed in (1, 2, 3):
        (model(trunk(images(seed, gradient=True))) * weight()).sum().backward()
    return gradients(model)


def channels_last(library: str) -> Found:
    model = chain(library).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = images().contiguous(memory_format=torch.channels_last).requires_grad_()
    (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def several_chains(library: str) -> Found:
    model = nn.Sequential(chain(library, blocks=2), nn.Conv2d(8, 8, 1).double(), chain(library, blocks=2))
    nn.init.constant_(model[1].weight, 0.1)
    nn.init.constant_(model[1].bias, 0.2)
    x = images(gradient=True)
    (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def called_twice(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    (model(trunk(x)) * weight() + model(trunk(x).cos())).sum().backward()
    return [*gradients(model), x.grad]


def parameter_hooks(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    calls: list[int] = []
    for parameter in model.parameters():
        parameter.register_hook(lambda g: (calls.append(1), g * 0.5)[1])
    (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad, torch.tensor([float(len(calls))])]


def module_hooks(library: str) -> Found:
    model, x = chain(library), images(gradient=True)
    model.blocks[1].f[2].register_forward_hook(lambda module, args, out: out * 0.5)
    (model(trunk(x)) * weight()).sum().backward()
    return [*gradients(model), x.grad]


def deep_copy(library: str) -> Found:
    model = chain(library)
    model(trunk(images(gradient=True))).sum().backward()
    model = copy.deepcopy(model)
    model.zero_grad()
    (model(trunk(images(gradient=True))) * weight()).sum().backward()
    return gradients(model)


def pickled(library: str) -> Found:
    model = pickle.loads(pickle.dumps(chain(library)))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file, weights_only=True))
    (model(trunk(images(gradient=True))) * weight()).sum().backward()
    return gradients(model)


def distributed(library: str) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            model, x = chain(library), images(gradient=True)
            (DistributedDataParallel(model)(trunk(x)) * weight()).sum().backward()
            return [*gradients(model), x.grad]
        finally:
            dist.destroy_process_group()


def fake_tensors(library: str) -> Found:
    with FakeTensorMode():
        model = chain(library, double=False)
        model(trunk(torch.randn(4, 8, 5, 5, requires_grad=True))).sum().backward()
        shapes = [None if p.grad is None else p.grad.shape for p in model.parameters()]
    return [None if shape is None else torch.ones(shape) for shape in shapes]


def shared_module(library: str) -> Found:
    torch.manual_seed(0)
    shared = function()
    pairs = [(shared, function()), (function(), shared)]
    if library in PEERS:
        model: nn.Module = PeerChain(library, pairs).double()
    else:
        model = reversible(pairs, strategy="stored" if library == "stored" else "reconstructed").double()
    (model(trunk(images(gradient=True))) * weight()).sum().backward()
    return gradients(model)


def changed_parameter(library: str) -> Found:
    model = chain(library)
    loss = (model(trunk(images(gradient=True))) * weight()).sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    loss.backward()
    return gradients(model)


USES: Mapping[str, Callable[[str], Found]] = {
    "batch norm's running statistics": running_statistics,
    "dropout inside F": dropout,
    "autocast bfloat16, backward outside it": autocast,
    "the input needs no gradient": input_without_gradient,
    "a leaf input's `.grad`": leaf_input,
    "the input is used elsewhere too": input_used_elsewhere,
    "the output is used elsewhere too": output_used_elsewhere,
    "the output is changed in place before backward": output_changed_in_place,
    "`torch.autograd.grad`": autograd_grad,
    "`create_graph=True`, for a gradient penalty": create_graph,
    "`retain_graph`, backward twice": retain_graph,
    "`torch.compile` of the model (aot_eager)": compiled,
    "`FlopCounterMode`": flop_counter,
    "some parameters frozen": frozen_parameters,
    "all but the last layer frozen": all_but_the_last_frozen,
    "`eval()` after a training step": evaluation,
    "`no_grad()`": without_gradient,
    "gradient accumulation": accumulation,
    "channels_last": channels_last,
    "several chains in one model": several_chains,
    "a chain called twice before backward": called_twice,
    "hooks on parameters": parameter_hooks,
    "hooks on modules that change what passes": module_hooks,
    "`deepcopy` after a step": deep_copy,
    "`pickle` and state dict": pickled,
    "`DistributedDataParallel`": distributed,
    "`FakeTensorMode`": fake_tensors,
    "a module shared between two blocks": shared_module,
    "a parameter is changed before backward": changed_parameter,
}
TRACES = ("batch norm's running statistics",)
TOLERANCES = {"autocast bfloat16, backward outside it": 0.05}


def verdict(library: str, use: str) -> str:
    """What becomes of one use, in words; the reference is plain autograd."""
    reference: Found | None
    try:
        reference = USES[use]("stored")
    except RuntimeError:
        reference = None  # plain autograd refuses it as well
    try:
        found = USES[use](library)
    except Exception as error:
        clear = library == "revbench" and type(error) in (RuntimeError, ValueError)
        return ERROR if clear else f"raises {type(error).__name__}"
    if reference is None:
        return WRONG
    if [g is None for g in found] != [g is None for g in reference]:
        return "**no gradient, silent**"
    if relative_difference(found, reference) < TOLERANCES.get(use, 1e-9):
        return RIGHT
    return TRACE if use in TRACES else WRONG


def verdict_apart(library: str, use: str) -> str:
    """The same, in a process forked for it; only from one that has started no threads, so not from a test."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.write(write, verdict(library, use).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return said or f"**ends with signal {os.WTERMSIG(status)}**"


def table() -> list[str]:
    """The lines of the table in docs/compared.md, made by ``python -m tests.backprop.uses``; a dash where a library is
    not installed.
    """
    there = {library: importlib.util.find_spec(library) is not None for library in PEERS}
    lines = [f"| use | revbench | {' | '.join(PEERS)} |", "|---" * (2 + len(PEERS)) + "|"]
    for use in USES:
        cells = [verdict_apart(library, use) if there.get(library, True) else "–" for library in ("revbench", *PEERS)]
        lines.append(f"| {use} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("\n".join(table()))
