"""What a network could not be called with is said with the shapes that it was given and that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.observing.calling import call
from revbench.observing.refusals import described, refusal


class Network(nn.Module):
    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        return y


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, tokens: Tensor, mask: Tensor, *, flag: bool = False) -> Tensor:
        return tokens * mask


def words(model: nn.Module, inputs: Any) -> str:
    with pytest.raises((RuntimeError, TypeError, IndexError, ValueError)) as caught:
        call(model, inputs)
    return refusal(caught.value)


LAYERS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "Linear": (lambda: nn.Linear(3, 4), (2, 5), "(…, 3)"),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3), (2, 4, 9, 9), "(N, 3, H, W)"),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3), (2, 4, 9), "(N, 3, L)"),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (2, 4), "(N, 3, …)"),
    "GroupNorm": (lambda: nn.GroupNorm(1, 3), (2, 4), "(N, 3, …)"),
    "LayerNorm": (lambda: nn.LayerNorm([3, 2]), (2, 4), "(…, 3, 2)"),
    "GRU": (lambda: nn.GRU(3, 4, batch_first=True), (2, 5, 4), "(N, L, 3)"),
    "Embedding": (lambda: nn.Embedding(9, 4), (2, 3), "integers from 0 to 8"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_says_what_it_takes(kind: str) -> None:
    make, shape, takes = LAYERS[kind]
    found = words(Network(make()), torch.ones(shape))
    assert found == f"stem ({kind}) takes {takes} and was given the batch, float32 {shape}"


def test_a_token_too_many() -> None:
    assert words(Network(nn.Embedding(9, 4)), torch.tensor([[1, 9]])) == (
        "stem (Embedding) takes integers from 0 to 8 and was given int64 (1, 2) from 1 to 9; the batch is int64 (1, 2)"
    )


def test_layers_further_inside_are_named() -> None:
    deep = Network(Network(nn.Sequential(nn.Flatten(), nn.Linear(3, 4))))
    assert words(deep, torch.ones(2, 5)).startswith("stem.stem.1 (Linear) takes (…, 3) and was given the batch, ")
    chain = Network(reversible([(nn.Linear(3, 3), nn.Linear(3, 3))]))
    assert words(chain, torch.ones(2, 8)) == (
        "stem.blocks.0.f (Linear) takes (…, 3) and was given float32 (2, 4); the batch is float32 (2, 8)"
    )


def test_a_missing_argument() -> None:
    x = torch.ones(2, 3)
    assert words(Two(), x) == ("Two takes (tokens, mask, flag) and was given the batch, float32 (2, 3)")
    assert words(Two(), (x, x, x)) == (
        "Two takes (tokens, mask, flag) and was given the batch, (float32 (2, 3), float32 (2, 3), float32 (2, 3))"
    )


def test_a_function_that_gives_an_embedding_nothing() -> None:
    class Nothing(Network):
        def forward(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
            y: Tensor = self.stem(ids)
            return y

    assert words(Nothing(nn.Embedding(9, 4)), torch.ones(2, 3)) == (
        "stem (Embedding) takes integers from 0 to 8 and was given NoneType; the batch is float32 (2, 3)"
    )


def test_an_argument_that_is_bound_anew_is_quoted_as_it_was_given() -> None:
    class Bound(Network):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x.view(len(x), 7)

    x = torch.ones(2, 3)
    assert words(Bound(nn.Linear(3, 4)), x) == "Bound takes (x) and was given the batch, float32 (2, 3)"


def test_a_method_that_is_no_call_is_not_said_to_be_given_the_batch() -> None:
    class Encoder(nn.Linear):
        def encode(self, x: Tensor) -> Tensor:
            return x @ self.weight

    class Outer(Network):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.stem.encode(x * 2)  # type: ignore[union-attr,operator]
            return y

    assert words(Outer(Encoder(4, 5)), torch.ones(2, 3)) == "stem (Encoder) takes (…, 4); the batch is float32 (2, 3)"


def test_names_that_forward_has_not() -> None:
    found = words(Network(nn.Linear(3, 4)), {"ids": torch.ones(2, 3), "mask": torch.ones(2, dtype=torch.bool)})
    assert found == (
        "stem (Linear) takes (…, 3) and was given the batch, {ids: float32 (2, 3), mask: bool (2,)}; it went in whole, since"
        " Network takes (x)"
    )


def test_what_we_raise_ourselves_says_all() -> None:
    chain = reversible([(nn.Linear(3, 3), nn.Linear(3, 3))])
    assert words(Network(chain), torch.ones(2, 7)) == ""


def test_an_error_of_something_else() -> None:
    assert refusal(ValueError("no call at all")) == ""


def test_batches_in_words() -> None:
    assert described((torch.ones(2), [torch.zeros(1, dtype=torch.int64), 3])) == "(float32 (2,), (int64 (1,), int))"
    assert len(described([torch.ones(2)] * 100)) <= 200
