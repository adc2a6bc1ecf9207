"""The same network, deeper."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy

from revbench.case import Case
from revbench.errors import UserError
from revbench.models import build_model
from revbench.paper.catalogue import Architecture, architecture
from revbench.prediction.fit import MARGIN, Fit, largest
from revbench.workload import Loss, MakeBatch, normal_images

DEPTHS = ("blocks", "depth", "layers")  # arguments of a factory that are taken to be its depth
_LONGEST = 40  # units, or what a factory counts, above which a prediction would take long and is extrapolated


def deepened(
    name: str, units: str, image_size: int | None = None, num_classes: int | None = None
) -> tuple[nn.Module, MakeBatch, Loss]:
    """Returns a network of the catalogue with other numbers of units, as a workload.

    A case names it ``revbench.prediction.depth:deepened(name=revnet-104,units=2-2-40-2)``.

    Args:
        name: of the catalogue.
        units: of each group, joined by hyphens.
        image_size, num_classes: the network's own if not given.

    Raises:
        UserError: an unknown network, or units that no network can have.
    """
    if not all(count.isdigit() for count in units.split("-")):
        raise UserError(f"units={units} must be integers joined by hyphens, one a group")
    overrides: dict[str, Any] = {"units": tuple(int(count) for count in units.split("-"))}
    overrides |= {k: v for k, v in (("image_size", image_size), ("num_classes", num_classes)) if v is not None}
    model = build_model(name, **overrides)
    a = model.architecture
    return model, normal_images(a.image_size, a.num_classes), cross_entropy


def layers(a: Architecture) -> int:
    """Layers with weights, as the networks' names count them: 104 for RevNet-104."""
    return sum(a.units) * a.streams * (3 if a.bottleneck else 2) + 2


def deepest(case: Case, limit_bytes: int) -> Fit:
    """Returns the deepest network of a kind whose training step fits, with the case's batch.

    A network of the catalogue grows as its family does: those for CIFAR in all groups alike, those for ImageNet in the
    third group. A factory grows in the argument ``blocks``, ``depth`` or ``layers`` that its name gives. Where memory grows
    more slowly than depth, as under ``checkpointed``, one slightly deeper may fit too.

    Raises:
        UserError: a factory that names no such argument, and what `predict` raises.
    """
    return largest(case, lambda value: deeper(case, value), limit_bytes, MARGIN, start=8, longest=_LONGEST)


def deeper(case: Case, value: int) -> Case:
    """Returns the case whose network has this many units a group (ImageNet: in the third group), or whose factory this depth."""
    factory = case.factory
    if factory is not None:
        named = [name for name in DEPTHS if isinstance(factory.arguments.get(name), int)]
        if len(named) != 1:
            raise UserError(
                f"model {case.model!r} does not say how deep it is; name one of {', '.join(DEPTHS)}:"
                " package.module:factory(blocks=9)"
            )
        return case.replace(model=str(factory.with_arguments(**{named[0]: value})))
    a = architecture(case.model)
    units = tuple(value for _ in a.units) if a.stem == "cifar" else (*a.units[:2], value, *a.units[3:])
    given = {"image_size": case.image_size, "num_classes": case.num_classes}
    named_fields = "".join(f",{name}={number}" for name, number in given.items() if number is not None)
    model = f"{__name__}:deepened(name={case.model},units={'-'.join(map(str, units))}{named_fields})"
    return case.replace(model=model, image_size=None, num_classes=None)


def depth_of(case: Case) -> str:
    """Returns how deep the network of such a case is, in words."""
    factory = case.factory
    arguments = factory.arguments if factory is not None else {}
    if factory is not None and (factory.module, factory.attribute) == (__name__, deepened.__name__):
        units = tuple(int(count) for count in str(arguments["units"]).split("-"))
        found = dataclasses.replace(architecture(str(arguments["name"])), units=units)
        return f"{layers(found)} layers, units {arguments['units']}"
    return ", ".join(f"{name} {arguments[name]}" for name in DEPTHS if name in arguments)
