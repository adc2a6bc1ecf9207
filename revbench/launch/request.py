"""What ``revbench train`` is asked for, and the trainings that this comes to; no torch is imported here."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revbench.case import DEFAULT_CLASSES, Case, check_field
from revbench.case.pairs import model_cases, pair_cases, pair_of, recipe_of
from revbench.errors import UserError
from revbench.paper.catalogue import CATALOGUE
from revbench.paper.recipes import RECIPES, Recipe
from revbench.training.sources import (
    DIGITS,
    FACTORY,
    TEXT,
    check_data,
    count_classes,
    count_training_images,
    is_text,
    split_data_option,
)

MOST_STEPS = 2_000_000  # a line of the series has about 120 bytes


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which networks are trained, on what and how; the constructor only stores.

    Attributes:
        models, strategies: single networks under strategies; or
        pair, nulls: a pair by the number or the name of either of its networks, with so many nulls. See `revbench.case.pairs`.
        seed, seeds: the first, and how many: one training of each for each of them.
        recipe: a key of `revbench.paper.recipes.RECIPES`; the paper's for these networks if None.
        steps, epochs, batch_size: the recipe's if None; the batch is that of all processes together.
        data, images: what is trained on, as for `revbench.training.sources.split_data_option` (the digits or Python's
            documentation if None), and how many images of it; all if None.
        fields: more fields of every case.
        options: of `revbench.training.loop.measure_training`.
    """

    models: Sequence[str]
    pair: str | None
    strategies: Sequence[str]
    nulls: int
    seed: int
    seeds: int
    recipe: str | None
    steps: int | None
    epochs: float | None
    batch_size: int | None
    data: str | None
    images: int | None
    fields: Mapping[str, Any]
    options: Mapping[str, Any]

    def cases(self, world_size: int) -> list[Case]:
        """Returns the trainings, checked, for so many processes; their device is still the default.

        Raises:
            UserError: settings that can't be.
        """
        self._check(world_size)
        name = self._recipe()
        recipe = RECIPES[name]
        label, source = split_data_option(self._data(name))
        if recipe.crop == "resized" and source == DIGITS:
            raise UserError(
                f"recipe {name} crops image files, and the digits are none; give --data PATH or --recipe cifar"
            )
        if source == FACTORY and world_size > 1:
            raise UserError("data: what a factory draws is not shared out among processes; train with one")
        if (is_text(source) or source == FACTORY) and (self.images is not None or self.epochs is not None):
            raise UserError("--images and --epochs are of images; of other data give --steps")
        available = 0 if is_text(source) or source == FACTORY else count_training_images(source)
        count = min(self.images or available, available)
        batch_size = recipe.batch_size if self.batch_size is None else self.batch_size
        steps = count_steps(recipe, self.steps, self.epochs, count, batch_size)
        if steps > MOST_STEPS:
            raise UserError(
                f"{steps:,} steps are more than the {MOST_STEPS:,} whose series a report can read; give fewer"
            )
        base = Case(
            model="", data=label, recipe=name, batch_size=batch_size, data_images=count if count < available else 0,
            training_steps=steps, world_size=world_size, optimizer=recipe.optimizer, **self.fields,
        )  # fmt: skip
        seeds = range(self.seed, self.seed + self.seeds)
        if self.pair is not None:
            cases = pair_cases(pair_of(self.pair), base, nulls=self.nulls, seeds=seeds)
        else:
            cases = model_cases(self.models, self.strategies, base, seeds=seeds)
        for case in cases:
            check_data(case.model, case.item, source, name)
        if is_text(source) or source == FACTORY:
            return [case.check() for case in cases]
        classes = count_classes(source)
        return [
            (case.replace(num_classes=classes) if classes != _classes_of(case.model) else case).check()
            for case in cases
        ]

    def _data(self, recipe: str) -> str:
        """Returns what is trained on: what is given, else what is always there."""
        return self.data or (TEXT if recipe == "text" else DIGITS)

    def _recipe(self) -> str:
        return self.recipe or recipe_of([pair_of(self.pair)[1]] if self.pair is not None else self.models)

    def worker_options(self) -> dict[str, Any]:
        """Returns the options as a worker takes them, with where the images are."""
        loaders = self.options["loaders"]
        return {
            **self.options, "loaders": _free_cores() if loaders is None else loaders,
            "data_path": split_data_option(self._data(self._recipe()))[1],
        }  # fmt: skip

    def _check(self, world_size: int) -> None:
        if (self.pair is None) == (not self.models):
            raise UserError("give one or more models, or --pair NUMBER")
        if self.pair is not None and self.strategies:
            raise UserError(
                "--pair trains its reversible network stored and reconstructed; --strategy is for single models"
            )
        for name, value, least in (
            ("nulls", self.nulls, 0), ("seeds", self.seeds, 1), ("steps", self.steps, 1), ("images", self.images, 1),
            *((name, value, 1 if name == "evaluations" else 0) for name, value in self.options.items()),
        ):  # fmt: skip
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')}={value} must be at least {least}")
        if world_size > 1 and self.fields["sync_batch_norm"] and self.options["drift_every"]:
            raise UserError("--drift-every measures in one process alone; omit it or --sync-batch-norm")
        if self.recipe is not None:
            check_field("recipe", self.recipe)


def count_steps(recipe: Recipe, steps: int | None, epochs: float | None, images: int, batch_size: int) -> int:
    """Returns as many as are asked for, or as so many epochs take, or the recipe's.

    Raises:
        UserError: both are given, or no positive number of epochs.
    """
    if steps is not None and epochs is not None:
        raise UserError("give --steps or --epochs, not both")
    if epochs is None:
        return steps or recipe.steps
    if not 0 < epochs < math.inf:
        raise UserError(f"--epochs={epochs} must be a number of more than 0")
    return max(round(epochs * images / max(batch_size, 1)), 1)


def _classes_of(model: str) -> int:
    return getattr(CATALOGUE.get(model), "num_classes", DEFAULT_CLASSES)


def _free_cores() -> int:
    """Returns one a core that the processes of this machine leave free, at most 8 for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 0), 8)
