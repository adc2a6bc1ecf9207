"""Reversible networks that others wrote, small, as factories: what the doctor is shown on.

A case names one as ``revbench.zoo:memcnn`` or ``revbench.zoo:memcnn(blocks=9)``. Each package is used as its own documentation
says, by the people who wrote it and whom we thank; the functions inside are plain layers. The packages are of the extra ``zoo``.
"""

from __future__ import annotations

import copy
import functools
import importlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from revbench.errors import UserError, unknown

Batches = Callable[[int, torch.Generator], tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]
Made = tuple[nn.Module, Batches, Loss]
MadeOfTwo = tuple[nn.Module, Batches, Loss, Callable[[nn.Module, str], None]]  # with what sets one of its two ways

_CHANNELS, _SIZE, _CLASSES = 8, 6, 5


def _imported(package: str) -> Any:
    """Returns a package.

    Raises:
        UserError: it is not installed, or can't be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they call of PyTorch is deprecated
            return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{package} can't be imported ({error}); it is of the extra zoo: pip install revbench[zoo]"
        ) from error


def _labelled(size: int) -> Batches:
    """Returns what draws square images of this size, and a class of each."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = torch.randn(count, 3, size, size, generator=generator)
        return images, torch.randint(_CLASSES, (count,), generator=generator)

    return make_batch


_images = _labelled(_SIZE)


def _normal(inputs: Sequence[int], targets: Sequence[int]) -> Batches:
    """Returns what draws inputs and targets of these shapes, behind the number of items, of the normal distribution."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(count, *inputs, generator=generator), torch.randn(count, *targets, generator=generator)

    return make_batch


class ImageNetwork(nn.Module):
    """A 3×3 convolution, somebody's blocks from one tensor to one, the mean of each channel, a linear layer."""

    def __init__(self, blocks: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _CHANNELS, 3, padding=1)
        self.blocks = blocks
        self.head = nn.Linear(_CHANNELS, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``(N, 5)`` of images ``(N, 3, S, S)``."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


def _function(channels: int = _CHANNELS // 2) -> nn.Module:
    convolution = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), convolution, nn.Dropout(0.5))


def _pairs(blocks: int) -> Iterable[tuple[nn.Module, nn.Module]]:
    return [(_function(), _function()) for _ in range(blocks)]


def revbench(blocks: int = 3) -> Made:
    """Returns a network of our own chain."""
    from revbench.backprop import reversible

    return ImageNetwork(reversible(_pairs(blocks))), _images, cross_entropy


def _set(attribute: str, stored: Any, reconstructed: Any) -> Callable[[nn.Module, str], None]:
    """Returns what sets an attribute on every module that has it."""

    def set_strategy(model: nn.Module, strategy: str) -> None:
        for module in model.modules():
            if hasattr(module, attribute):
                setattr(module, attribute, stored if strategy == "stored" else reconstructed)

    return set_strategy


def memcnn(blocks: int = 3, preserve: bool = False) -> MadeOfTwo:
    """Returns one of memcnn's additive couplings, each in its wrapper (van de Leemput et al. 2019); `preserve` is its
    ``preserve_rng_state``."""
    package = _imported("memcnn")
    wrapped = (
        package.InvertibleModuleWrapper(
            package.AdditiveCoupling(Fm=f, Gm=g),
            keep_input=False,
            keep_input_inverse=False,
            preserve_rng_state=preserve,
        )
        for f, g in _pairs(blocks)
    )
    return ImageNetwork(nn.Sequential(*wrapped)), _images, cross_entropy, _set("disable", True, False)


def revtorch(blocks: int = 3, fixed: bool = False) -> Made:
    """Returns one of RevTorch's blocks; `fixed` is its ``fix_random_seed``."""
    package = _imported("revtorch")
    chain = package.ReversibleSequence(
        nn.ModuleList(
            package.ReversibleBlock(f, g, split_along_dim=1, fix_random_seed=fixed) for f, g in _pairs(blocks)
        )
    )
    return ImageNetwork(chain), _images, cross_entropy


def revlib(blocks: int = 3) -> Made:
    """Returns one of revlib's sequence."""
    package = _imported("revlib")
    chain = package.ReversibleSequential(*(module for pair in _pairs(blocks) for module in pair))
    return ImageNetwork(chain), _images, cross_entropy


def pytorchcv(blocks: int = 3) -> MadeOfTwo:
    """Returns pytorchcv's RevNet with one group of so many units; its head pools 56 by 56 pixels."""
    package = _imported("pytorchcv.models.revnet")
    network = package.RevNet(
        channels=[[_CHANNELS] * blocks], init_block_channels=_CHANNELS, bottleneck=False, in_size=(56, 56),
        num_classes=_CLASSES,
    )  # fmt: skip

    return network, _labelled(56), cross_entropy, _set_pytorchcv


def _set_pytorchcv(model: nn.Module, strategy: str) -> None:
    """Sets plain autograd of the same functions, or pytorchcv's own function, on each of its blocks."""

    def plain(x: Tensor, fm: nn.Module, gm: nn.Module, *parameters: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, 1)
        y1 = x1 + fm(x2)
        return torch.cat((y1, x2 + gm(y1)), 1)

    package = _imported("pytorchcv.models.revnet")
    for module in model.modules():
        if isinstance(module, package.ReversibleBlock):
            stored = strategy == "stored"
            module.rev_funct = plain if stored else package.ReversibleBlockFunction.apply
            # Its own forward frees the block's input.
            forward = functools.partial(_plain_block, module) if stored else None
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


def _plain_block(block: Any, x: Tensor) -> Tensor:
    found: Tensor = block.rev_funct(x, block.fm, block.gm)
    return found


def momentumnet(blocks: int = 3) -> Made:
    """Returns momentumnet's network over residual functions of images, with its memory-saving backward pass."""
    package = _imported("momentumnet")
    functions = [_function(_CHANNELS) for _ in range(blocks)]
    return ImageNetwork(package.MomentumNet(functions, gamma=0.9, use_backprop=False)), _images, cross_entropy


def iunets(blocks: int = 2, orthogonal: str = "cayley") -> Made:
    """Returns iUNets' network of three levels with so many couplings each (Etmann et al. 2020).

    Args:
        blocks: couplings of a level.
        orthogonal: how orthogonal matrices are made of weights: ``cayley``, ``exp`` or ``householder``.
    """
    package = _imported("iunets")

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, _CHANNELS, 3, padding=1)
            self.net = package.iUNet(
                in_channels=_CHANNELS,
                dim=2,
                architecture=(blocks,) * 3,
                module_kwargs={"depth": 2},
                verbose=0,
                resampling_method=orthogonal,
                channel_mixing_method=orthogonal,
            )
            self.head = nn.Conv2d(_CHANNELS, 1, 1)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.head(self.net(self.stem(images)))
            return found

    return Whole(), _normal((3, 16, 16), (1, 16, 16)), mse_loss


class SequenceNetwork(nn.Module):
    """A linear layer, somebody's blocks on sequences, a linear layer."""

    def __init__(self, blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(4, width), blocks, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, T, 4)`` to ``(N, T, 4)``."""
        found: Tensor = self.head(self.blocks(self.stem(x)))
        return found


def reformer_pytorch(blocks: int = 2, lsh: bool = False) -> MadeOfTwo:
    """Returns reformer-pytorch's network, by default with full attention; `lsh` hashes."""
    package = _imported("reformer_pytorch")
    blocks_of = package.Reformer(
        dim=16, depth=blocks, heads=2, bucket_size=4, n_hashes=2, full_attn_thres=0 if lsh else 64, ff_chunks=1
    )
    return SequenceNetwork(blocks_of, 16), _normal((16, 4), (16, 4)), mse_loss, _set("reverse_thres", math.inf, 0)


def performer_pytorch(blocks: int = 2) -> Made:
    """Returns performer-pytorch's network, reversible."""
    package = _imported("performer_pytorch")
    blocks_of = package.Performer(dim=16, depth=blocks, heads=2, dim_head=8, reversible=True, nb_features=8)
    return SequenceNetwork(blocks_of, 16), _normal((16, 4), (16, 4)), mse_loss


def transformers_reformer(blocks: int = 2, lsh: bool = True) -> Made:
    """Returns the Reformer of transformers as a language model; with `lsh` half of its attentions hash."""
    package = _imported("transformers.models.reformer.modeling_reformer")
    configuration = _imported("transformers.models.reformer.configuration_reformer")
    layers = ["local", "lsh"] if lsh else ["local", "local"]
    config = configuration.ReformerConfig(
        vocab_size=20, hidden_size=16, feed_forward_size=16, num_attention_heads=2, attention_head_size=8,
        attn_layers=(layers * blocks)[:blocks], num_buckets=4, num_hashes=2, lsh_attn_chunk_length=4,
        local_attn_chunk_length=4, axial_pos_embds=False, max_position_embeddings=32, is_decoder=True,
        hidden_dropout_prob=0.0, local_attention_probs_dropout_prob=0.0, lsh_attention_probs_dropout_prob=0.0, hash_seed=None,
        use_cache=False,
    )  # fmt: skip
    model = package.ReformerModelWithLMHead(config)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.model(input_ids=tokens, use_cache=False).logits
            return found

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(20, (count, 17), generator=generator)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Logits(), make_batch, loss


def torch_geometric(blocks: int = 3) -> MadeOfTwo:
    """Returns a chain of PyTorch Geometric's GroupAddRev over two groups (Li et al. 2021), each a function of features."""
    package = _imported("torch_geometric.nn")

    class Graph(nn.Module):
        """A linear layer on the mean of the neighbours in a ring, which the blocks hand their edges to."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear, self.dropout = nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Dropout(0.5)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            found: Tensor = self.dropout(self.linear(self.norm(x).relu()))
            return found + torch.zeros_like(x).index_add(0, edges[1], found[edges[0]])

        def reset_parameters(self) -> None:
            """PyTorch Geometric calls it of the copies that it makes for further groups."""
            self.norm.reset_parameters()
            self.linear.reset_parameters()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 16), nn.Linear(16, 4)
            self.blocks = nn.ModuleList(package.GroupAddRev(Graph(), num_groups=2) for _ in range(blocks))

        def forward(self, x: Tensor) -> Tensor:
            nodes = torch.arange(len(x), device=x.device)
            edges = torch.stack((nodes, nodes.roll(1)))
            x = self.stem(x)
            for block in self.blocks:
                x = block(x, edges)
            found: Tensor = self.head(x)
            return found

    return Whole(), _normal((4,), (4,)), mse_loss, _set("disable", True, False)


def freia(blocks: int = 3) -> Made:
    """Returns a chain of FrEIA's affine couplings, which keeps its activations: a stored reversible network."""
    framework, modules = _imported("FrEIA.framework"), _imported("FrEIA.modules")

    def subnet(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = framework.SequenceINN(8)
            for _ in range(blocks):
                self.flow.append(modules.AllInOneBlock, subnet_constructor=subnet)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.flow(x)[0]
            return found

    return Whole(), _normal((8,), (8,)), mse_loss


class _UnderTorch(nn.Module):
    """Residual blocks on halves under one of PyTorch's own ways to keep fewer activations."""

    def __init__(self, blocks: int, way: str) -> None:
        super().__init__()
        from revbench.backprop import ReversibleBlock

        self.blocks = nn.ModuleList(ReversibleBlock(f, g) for f, g in _pairs(blocks))
        self._way = way
        self._budgeted: Any = None

    def forward(self, x: Tensor) -> Tensor:
        state = tuple(x.chunk(2, 1))
        if self._way == "budget":
            state = self._under_a_budget(*state)
        elif self._way == "offload":
            with torch.autograd.graph.save_on_cpu():
                for block in self.blocks:
                    state = block(*state)
        else:
            for block in self.blocks:
                state = self._checkpointed(block, state)
        return torch.cat(state, 1)

    def _checkpointed(self, block: nn.Module, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

        kept = [torch.ops.aten.convolution.default]
        options: dict[str, Any] = {"use_reentrant": self._way == "reentrant"}
        if self._way == "selective":
            options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, kept)
        found: tuple[Tensor, ...] = checkpoint(block, *state, **options)
        return found

    def _under_a_budget(self, *state: Tensor) -> tuple[Tensor, ...]:
        import torch._functorch.config as settings

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            for block in self.blocks:
                given = block(*given)
            return given

        if self._budgeted is None:
            self._budgeted = torch.compile(run)
        with settings.patch(activation_memory_budget=0.1):
            found: tuple[Tensor, ...] = self._budgeted(*state)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> _UnderTorch:
        other = _UnderTorch(0, self._way)
        memo[id(self)] = other
        other.blocks = copy.deepcopy(self.blocks, memo)
        return other


def torch_recomputation(way: str = "nonreentrant", blocks: int = 3) -> Made:
    """Returns the network of `revbench` under one of PyTorch's own ways.

    Args:
        way: ``nonreentrant`` or ``reentrant`` checkpoints, ``selective`` ones that keep the outputs of convolutions, ``budget``
            (compiled, with a tenth of the activations' memory), or ``offload`` (`save_on_cpu`).
        blocks: of the network.

    Raises:
        UserError: an unknown way.
    """
    if way not in TORCH_WAYS:
        raise unknown("way of PyTorch's", way, TORCH_WAYS)
    return ImageNetwork(_UnderTorch(blocks, way)), _images, cross_entropy


TORCH_WAYS = ("nonreentrant", "reentrant", "selective", "budget", "offload")
