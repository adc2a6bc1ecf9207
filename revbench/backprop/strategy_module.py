"""Modules that carry a strategy of back-propagation; the engine is in the files beside this."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from revbench.backprop.certificate import Certificate, Notary, Witness
from revbench.backprop.compiling import compile_pieces
from revbench.backprop.structure import Structures
from revbench.backprop.torch_strategies import BudgetedUnits
from revbench.case.views import Backpropagation
from revbench.choices import TORCH_STRATEGIES, Nonreversible, Strategy
from revbench.errors import UserError


class StrategyModule(nn.Module):
    """A module whose strategy of back-propagation can be set at any moment, on the same weights.

    Attributes:
        strategies: of our own, those that this module supports; PyTorch's (``torch_…``) it does.
        strategy: one of them, readable and settable; a call already made keeps the strategy it ran under.
        nonreversible: what becomes of the activations of units that can't be reconstructed: ``kept`` for
            the backward pass or ``recomputed`` in it. ``stored`` keeps everything and accepts only ``kept``.
        kept_half_blocks: under ``reconstructed``, how many half blocks at the end of each reversible chain keep
            their activations and are not run again; 0 at first.
        certify: whether the next calls under ``reconstructed`` certify their activations; False at first.
        tripwire: whether the backward pass of the next calls raises if a function gives another value than in forward, under
            the strategies of ours that run functions again; True at first.
        witness: if not None, sees the activations of the next calls under ``reconstructed`` in place of `certify`'s notary.
        structures: what the functions of its chains are made of, as far as that is known.
        budgeted_units: its units as ``torch_budget`` has compiled them.
        certificate: of the last call that was certified and back-propagated; None before that.
    """

    def __init__(self, strategies: Iterable[Strategy], strategy: Strategy, nonreversible: Nonreversible) -> None:
        super().__init__()
        self.strategies = tuple(strategies)
        self._chosen = Backpropagation("stored")  # but for what only `reconstructed` has
        self._kept_half_blocks = 0
        self._notary: Notary | None = None
        self.structures = Structures()
        self.budgeted_units = BudgetedUnits()
        self.certify = False
        self.tripwire = True
        self.witness: Witness | None = None
        self.set_strategy(strategy, nonreversible)

    @property
    def strategy(self) -> Strategy:
        """The strategy of the next call."""
        return self._chosen.strategy

    @strategy.setter
    def strategy(self, value: Strategy) -> None:
        self.set_strategy(value, self.nonreversible if value != "stored" else "kept")

    @property
    def nonreversible(self) -> Nonreversible:
        """What the next call does with activations that can't be reconstructed."""
        return self._chosen.nonreversible

    @nonreversible.setter
    def nonreversible(self, value: Nonreversible) -> None:
        self.set_strategy(self.strategy, value)

    @property
    def backpropagation(self) -> Backpropagation:
        """All that the next call goes by; setting it sets strategy, nonreversible, kept half blocks and certify at once."""
        if self.strategy != "reconstructed" or not (self._kept_half_blocks or self.certify):
            return self._chosen
        return replace(self._chosen, kept_half_blocks=self._kept_half_blocks, certify=self.certify)

    @backpropagation.setter
    def backpropagation(self, value: Backpropagation) -> None:
        self.set_strategy(value.strategy, value.nonreversible)
        self.kept_half_blocks, self.certify = value.kept_half_blocks, value.certify

    @property
    def kept_half_blocks(self) -> int:
        """Half blocks at the end of a chain that the next call keeps."""
        return self._kept_half_blocks

    @kept_half_blocks.setter
    def kept_half_blocks(self, value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"kept_half_blocks={value!r} must be an integer of at least 0")
        self._kept_half_blocks = value

    @property
    def certificate(self) -> Certificate | None:
        """Whether the reconstructed activations of the last certified call were the stored ones, bit for bit."""
        return self._notary.certificate() if self._notary is not None else None

    def pieces(self) -> list[nn.Module]:
        """Returns what the strategies call: F and G of each additive coupling, and the other units whole."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it calls")

    def compile_pieces(self, *, backend: str | Callable[..., Any] = "inductor") -> int:
        """Compile each of the `pieces`; see `revbench.backprop.compiling`. Returns how many."""
        return compile_pieces(self.pieces(), backend=backend)

    def _next_witness(self) -> Witness | None:
        """Returns the witness of one call: the one that is set, or the one that takes the checksums if this module certifies."""
        if not (self.strategy == "reconstructed" and torch.is_grad_enabled()):
            return None
        if self.witness is not None or not self.certify:
            return self.witness
        self._notary = Notary()
        return self._notary

    def set_strategy(self, strategy: Strategy, nonreversible: Nonreversible) -> None:
        """Set both choices at once.

        Raises:
            UserError: an unknown name, a strategy that this module does not support, or ``stored``
                together with ``recomputed``.
        """
        chosen = Backpropagation(strategy, nonreversible)
        if strategy not in (*self.strategies, *TORCH_STRATEGIES):
            name = getattr(self, "name", type(self).__name__)
            raise UserError(
                f"{name} has no reversible block, so strategy {strategy!r} is not possible;"
                f" use one of {', '.join(self.strategies)}"
            )
        self._chosen = chosen
