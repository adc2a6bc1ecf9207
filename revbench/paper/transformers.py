"""Transformers and their reversible pairs, as data; this module imports no torch.

Language models: pre-norm, causal, with tied embeddings, as GPT-2 (Radford et al. 2019); vision: the same blocks over patches
(Dosovitskiy et al. 2021), with global average pooling. A reversible one has two streams of the full width, which both begin as
the embedding and are averaged at the end; F is the attention of a block and G its MLP, each with its norm (Kitaev et al. 2020,
"Reformer", section 3; Mangalam et al. 2022, "Reversible Vision Transformers", section 3). So a pair has the same parameters.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from revbench.errors import UserError
from revbench.paper.architectures import Architecture, Family, Item

Positions = Literal["learned", "rotary"]
_LARGEST_IN_MEMORY = 64  # pixels, above which images are read one by one
_MLP = 4  # times as wide as the stream is the hidden layer of a block


@dataclass(frozen=True, kw_only=True)
class TransformerArchitecture(Architecture):
    """What language and vision have in common.

    Attributes:
        blocks: how many, each of attention and MLP.
        width: features of a stream.
        heads: of the attention; they share the width.
    """

    blocks: int
    width: int
    heads: int

    @property
    def depth(self) -> Sequence[int]:
        """The blocks, which are one group."""
        return [self.blocks]

    @property
    def layers(self) -> str:
        """The blocks, in words."""
        return f"{self.blocks} blocks"

    def deepened(self, units: Sequence[int]) -> TransformerArchitecture:
        """Returns the same network with so many blocks."""
        (blocks,) = units
        return dataclasses.replace(self, blocks=blocks)

    def grown(self, value: int) -> Sequence[int]:
        """Returns the number of blocks itself."""
        return [value]

    def check(self) -> None:
        """Raise a `UserError` if no network can be so."""
        self.check_coupling()
        self.check_positive("blocks", "width", "heads")
        if self.width % self.heads:
            raise UserError(
                f"{self.name}: width={self.width} can't be shared by {self.heads} heads; give a multiple of that"
            )

    @property
    def block_parameters(self) -> int:
        """Parameters of all blocks: products of ``4 w²`` and ``8 w²``, their biases, two norms."""
        w = self.width
        attention, mlp, norms = 4 * w * w + 4 * w, 2 * _MLP * w * w + (_MLP + 1) * w, 4 * w
        return self.blocks * (attention + mlp + norms)

    @property
    @abc.abstractmethod
    def parameters(self) -> int:
        """Parameters of the whole network."""

    @property
    @abc.abstractmethod
    def tokens(self) -> int:
        """How many elements a sequence has."""

    @property
    def block_flops(self) -> int:
        """Operations of the forward pass of all blocks on one sequence, an add-multiply being two: products with weights, and of
        the attention the scores and what is weighted by them, whole, as kernels and their counts have it."""
        products = 2 * self.tokens * self.width**2 * (4 + 2 * _MLP)
        return self.blocks * (products + 4 * self.tokens**2 * self.width)


@dataclass(frozen=True, kw_only=True)
class LanguageArchitecture(TransformerArchitecture):
    """All that determines a language model.

    Shape: tokens ``(N, T)`` to logits ``(N, T, vocabulary)``.

    Attributes:
        vocabulary: tokens that there are; 256 for bytes.
        sequence_length: tokens of a sequence, T, in training and at most.
        positions: ``learned``, or ``rotary`` (Su et al. 2021) in each attention.
    """

    OVERRIDES = ("blocks", "width", "heads", "vocabulary", "sequence_length", "positions", "coupling")

    vocabulary: int
    sequence_length: int
    positions: Positions

    @property
    def item(self) -> Item:
        """A token."""
        return "token"

    @property
    def recipe(self) -> Literal["text"]:
        """That of language models."""
        return "text"

    @property
    def items(self) -> int:
        """The tokens of a sequence."""
        return self.sequence_length

    @property
    def tokens(self) -> int:
        """The tokens of a sequence."""
        return self.sequence_length

    @property
    def parameters(self) -> int:
        """Embedding, which is the head, too; learned positions; blocks; the last norm."""
        positions = self.sequence_length * self.width if self.positions == "learned" else 0
        return self.vocabulary * self.width + positions + self.block_parameters + 2 * self.width

    def check(self) -> None:
        """Raise a `UserError` if no network can be so."""
        super().check()
        self.check_positive("vocabulary", "sequence_length")
        if self.positions not in ("learned", "rotary"):
            raise UserError(f"{self.name}: positions={self.positions!r} must be learned or rotary")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise UserError(
                f"{self.name}: rotary positions need heads of an even width, not {self.width // self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class VisionArchitecture(TransformerArchitecture):
    """All that determines a vision transformer.

    Shape: images ``(N, 3, S, S)`` to logits ``(N, num_classes)``.

    Attributes:
        patch: height and width of a patch in pixels.
        num_classes: outputs of the linear layer.
        image_size: S, height and width in pixels.
    """

    OVERRIDES = ("blocks", "width", "heads", "patch", "num_classes", "image_size", "coupling")

    patch: int
    num_classes: int
    image_size: int

    @property
    def recipe(self) -> Literal["cifar", "imagenet"]:
        """That of images of CIFAR's size, which all lie in memory, or of larger ones, which are read one by one."""
        return "cifar" if self.image_size <= _LARGEST_IN_MEMORY else "imagenet"

    @property
    def tokens(self) -> int:
        """The patches of an image."""
        return (self.image_size // self.patch) ** 2

    @property
    def parameters(self) -> int:
        """Patches' embedding, positions, blocks, the last norm, the linear layer."""
        embedding = 3 * self.patch**2 * self.width + self.width + self.tokens * self.width
        return embedding + self.block_parameters + 2 * self.width + (self.width + 1) * self.num_classes

    def check(self) -> None:
        """Raise a `UserError` if no network can be so."""
        super().check()
        self.check_positive("patch", "num_classes", "image_size")
        if self.image_size % self.patch:
            raise UserError(
                f"{self.name}: image_size={self.image_size} can't be cut into patches of {self.patch}; give a multiple of that"
            )


_GPT: Sequence[tuple[Family, Family]] = (("gpt", "revgpt"), ("revgpt", "gpt"))
_VIT: Sequence[tuple[Family, Family]] = (("vit", "revvit"), ("revvit", "vit"))


def _language(
    size: str, blocks: int, width: int, heads: int, vocabulary: int, sequence_length: int, positions: Positions
) -> list[LanguageArchitecture]:
    return [
        LanguageArchitecture(
            name=f"{family}-{size}", pair=f"{other}-{size}", family=family, blocks=blocks, width=width, heads=heads,
            vocabulary=vocabulary, sequence_length=sequence_length, positions=positions,
        )
        for family, other in _GPT
    ]  # fmt: skip


def _vision(
    size: str, blocks: int, width: int, heads: int, patch: int, num_classes: int, image_size: int
) -> list[VisionArchitecture]:
    return [
        VisionArchitecture(
            name=f"{family}-{size}", pair=f"{other}-{size}", family=family, blocks=blocks, width=width, heads=heads, patch=patch,
            num_classes=num_classes, image_size=image_size,
        )
        for family, other in _VIT
    ]  # fmt: skip


TRANSFORMERS: Mapping[str, TransformerArchitecture] = {
    a.name: a
    for a in (
        # Over bytes, for a CPU; and of the size at which reversible language models are tried on small GPUs.
        *_language("1m", 10, 96, 4, 256, 128, "rotary"),
        *_language("20m", 16, 320, 5, 256, 256, "rotary"),
        # GPT-2 small: 124,439,808 parameters.
        *_language("124m", 12, 768, 12, 50_257, 1024, "learned"),
        # For CIFAR's images; and ViT-S/16 for ImageNet's.
        *_vision("1m", 10, 96, 4, 4, 10, 32),
        *_vision("22m", 12, 384, 6, 16, 1000, 224),
    )
}
