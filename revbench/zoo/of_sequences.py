"""Packages whose blocks are attention, shown on sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from revbench.zoo.making import Made, MadeOfTwo, SequenceNetwork, imported, normal, setter_of


def reformer_pytorch(blocks: int = 2, lsh: bool = False) -> MadeOfTwo:
    """Returns reformer-pytorch's network, by default with full attention; `lsh` hashes."""
    package = imported("reformer_pytorch")
    blocks_of = package.Reformer(
        dim=16, depth=blocks, heads=2, bucket_size=4, n_hashes=2, full_attn_thres=0 if lsh else 64, ff_chunks=1
    )
    return SequenceNetwork(blocks_of, 16), normal((16, 4), (16, 4)), mse_loss, setter_of("reverse_thres", math.inf, 0)


def performer_pytorch(blocks: int = 2) -> Made:
    """Returns performer-pytorch's network, reversible."""
    package = imported("performer_pytorch")
    blocks_of = package.Performer(dim=16, depth=blocks, heads=2, dim_head=8, reversible=True, nb_features=8)
    return SequenceNetwork(blocks_of, 16), normal((16, 4), (16, 4)), mse_loss


def transformers_reformer(blocks: int = 2, lsh: bool = True) -> Made:
    """Returns the Reformer of transformers as a language model; with `lsh` half of its attentions hash."""
    package = imported("transformers.models.reformer.modeling_reformer")
    configuration = imported("transformers.models.reformer.configuration_reformer")
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
