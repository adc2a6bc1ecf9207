"""Networks that others wrote, as factories: torchvision, timm, transformers, and libraries of reversible networks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

_WORDS, _LENGTH = 500, 128


class MainOutput(nn.Module):
    """A network of images, without its auxiliary classifiers' outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out = self.network(x)
        return out[0] if isinstance(out, tuple) else out


def of_torchvision(name: str = "resnet18") -> nn.Module:
    given = {"aux_logits": True, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return MainOutput(getattr(torchvision.models, name)(num_classes=10, **given))


def of_timm(name: str = "vit_tiny_patch16_224") -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, num_classes=10)
    return network


class Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.network(input_ids=words, use_cache=False).logits
        return logits


def of_transformers(name: str = "gpt2", dropout: float = 0.0) -> Any:
    import transformers as t

    if name == "gpt2":
        settings = t.GPT2Config(
            n_layer=4, n_head=4, n_embd=128, vocab_size=_WORDS, n_positions=256, resid_pdrop=dropout, embd_pdrop=dropout,
            attn_pdrop=dropout, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        network = t.GPT2LMHeadModel(settings)
    else:
        settings = t.LlamaConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=_WORDS,
        )  # fmt: skip
        network = t.LlamaForCausalLM(settings)

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        words = torch.randint(_WORDS, (count, _LENGTH), generator=generator)
        return words, words

    def loss(logits: Tensor, words: Tensor) -> Tensor:
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), words[:, 1:].flatten())

    return Logits(network), make_batch, loss


def of_iunets() -> Any:
    """A reversible network that gives the memory of its activations back while their tensors live."""
    import iunets

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 8, 64, 64, generator=generator)
        return x, x

    return iunets.iUNet(in_channels=8, channels=(8, 16, 32), architecture=(2, 2, 2), dim=2), make_batch, F.mse_loss


def of_momentumnet() -> Any:
    import momentumnet

    functions = [nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32)) for _ in range(8)]

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 32, generator=generator)
        return x, x

    return momentumnet.MomentumNet(functions, gamma=0.9), make_batch, F.mse_loss
