"""The same network, deeper."""

from __future__ import annotations

from torch import nn

from revbench.case import Case
from revbench.errors import UserError
from revbench.models.networks import Loss, MakeBatch, batches_of, network_of
from revbench.paper.catalogue import architecture
from revbench.prediction.fit import MARGIN, Fit, largest

DEPTHS = ("blocks", "depth", "layers")  # arguments of a factory that are taken to be its depth
_LONGEST = 40  # units, or what a factory counts, above which a prediction would take long and is extrapolated


def deepened(name: str, units: str | int, **overrides: int) -> tuple[nn.Module, MakeBatch, Loss]:
    """Returns a network of the catalogue with other numbers of units, as a workload.

    A case names it ``revbench.prediction.depth:deepened(name=revnet-104,units=2-2-40-2)``.

    Args:
        name: of the catalogue.
        units: of each group, joined by hyphens; of a transformer its blocks.
        overrides: ``image_size``, ``num_classes``, ``sequence_length``, the network's own if not given.

    Raises:
        UserError: an unknown network, or units that no network can have.
    """
    counts = str(units).split("-")
    if not all(count.isdigit() for count in counts):
        raise UserError(f"units={units} must be integers joined by hyphens, one a group")
    found = architecture(name, **overrides).deepened([int(count) for count in counts])
    found.check()
    return network_of(found, found.default_strategy), *batches_of(found)


def deepest(case: Case, limit_bytes: int) -> Fit:
    """Returns the deepest network of a kind whose training step fits, with the case's batch.

    A network of the catalogue grows as its family does: those for CIFAR in all groups alike, those for ImageNet in the
    third group, transformers in their blocks. A factory grows in the argument ``blocks``, ``depth`` or ``layers`` that its name
    gives. Where memory grows more slowly than depth, as under ``checkpointed``, one slightly deeper may fit too.

    Raises:
        UserError: a factory that names no such argument, and what `predict` raises.
    """
    return largest(case, lambda value: deeper(case, value), limit_bytes, MARGIN, start=8, longest=_LONGEST)


def deeper(case: Case, value: int) -> Case:
    """Returns the case whose network has this many units a group (ImageNet: in the third group) or blocks, or whose factory this
    depth."""
    factory = case.factory
    if factory is not None:
        named = [name for name in DEPTHS if isinstance(factory.arguments.get(name), int)]
        if len(named) != 1:
            raise UserError(
                f"model {case.model!r} does not say how deep it is; name one of {', '.join(DEPTHS)}:"
                " package.module:factory(blocks=9)"
            )
        return case.replace(model=str(factory.with_arguments(**{named[0]: value})))
    units = "-".join(map(str, architecture(case.model).grown(value)))
    named_fields = "".join(f",{name}={number}" for name, number in case.overrides.items())
    model = f"{__name__}:deepened(name={case.model},units={units}{named_fields})"
    return case.replace(model=model, **dict.fromkeys(case.overrides))


def depth_of(case: Case) -> str:
    """Returns how deep the network of such a case is, in words."""
    factory = case.factory
    arguments = factory.arguments if factory is not None else {}
    if factory is not None and (factory.module, factory.attribute) == (__name__, deepened.__name__):
        units = [int(count) for count in str(arguments["units"]).split("-")]
        return architecture(str(arguments["name"])).deepened(units).layers
    return ", ".join(f"{name} {arguments[name]}" for name in DEPTHS if name in arguments)
