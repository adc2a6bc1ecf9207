"""Which trainings belong together: a pair with its strategies and its null, on the same batches; no torch is imported here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from revbench.case.chains import Chain
from revbench.case.definition import Case, check_field
from revbench.errors import UserError
from revbench.paper.catalogue import CATALOGUE
from revbench.paper.recipes import RECIPES
from revbench.paper.residual import ResidualArchitecture


def pair_of(number: str) -> tuple[str, str]:
    """Returns the ordinary and the reversible network of a pair: by the number of either of a ResNet and its RevNet (``38`` and
    ``32`` are ResNet-32 / RevNet-38), or by the name of either.

    Raises:
        UserError: there is no such pair.
    """
    pairs = [(a.pair, name) for name, a in CATALOGUE.items() if a.reversible]
    for pair in pairs:
        numbers = [name.rpartition("-")[2] for name in pair if CATALOGUE[name].kind.endswith("Net")]
        if number in (*pair, *numbers):
            return pair
    known = ", ".join(name.removeprefix("revnet-") for _, name in pairs)
    raise UserError(f"no pair {number!r}; there are {known}, by the number of a RevNet or its ResNet, or by a name")


def recipe_of(models: Sequence[str]) -> str:
    """Returns the name of the recipe by which the paper trains these networks; a network that is not in the catalogue takes
    that of CIFAR.

    Raises:
        UserError: by more than one.
    """
    found = [CATALOGUE[model].recipe if model in CATALOGUE else "cifar" for model in models]
    if len(set(found)) > 1:
        raise UserError(
            f"these networks are trained by different recipes; give --recipe {' or --recipe '.join(RECIPES)}"
        )
    return found[0]


def pair_cases(pair: tuple[str, str], base: Case, *, nulls: int, seeds: Sequence[int]) -> list[Case]:
    """Returns ResNet stored, RevNet stored and reconstructed, and the nulls: RevNet stored with one weight moved by one ulp.

    All of one seed see the same batches; the RevNets of one seed start from the same weights.
    """
    cases = []
    for seed in seeds:
        revnet = base.replace(model=pair[1], strategy="stored", seed=seed)
        resnet = revnet.replace(model=pair[0], coupling="additive")
        cases += [resnet, revnet, revnet.replace(strategy="reconstructed")]
        cases += [revnet.replace(ulp=i + 1) for i in range(nulls)]
    return cases


def model_cases(models: Sequence[str], strategies: Sequence[str], base: Case, *, seeds: Sequence[int]) -> list[Case]:
    """Returns each model under each strategy; by default ``reconstructed`` for a RevNet, ``stored`` for a ResNet."""
    cases = []
    for model in models:
        known = CATALOGUE.get(model)
        default = known.default_strategy if known is not None else "reconstructed"
        for strategy in strategies or (default,):
            check_field("strategy", strategy)
            cases += [base.replace(model=model, strategy=strategy, seed=seed) for seed in seeds]
    return cases


def group_of(case: Case) -> Case:
    """Returns what a case is compared with, which names its group: a case that differs in strategy only, of the ResNet that a
    RevNet is paired with; for a chain of blocks those by plain autograd, uncompiled, whichever library back-propagates it."""
    chain = Chain.of(case)
    if chain is not None and chain.names_library:
        return case.stored().replace(model=chain.ours(), compile=False)
    return case.stored().replace(model=ordinary_of(case))


def paired(cases: Iterable[Case]) -> list[list[Case]]:
    """Returns cases in groups: those that differ in strategy only, a ResNet together with the RevNet it is paired with."""
    groups: dict[Case, list[Case]] = {}
    for case in cases:
        groups.setdefault(group_of(case), []).append(case)
    return list(groups.values())


def ordinary_of(case: Case) -> str:
    """Returns the model itself; of a reversible network of the catalogue the one that it is paired with, unless it has another
    coupling, or is deeper than there: a ResNet of as many units is not its pair, a transformer of as many blocks is."""
    known = case.architecture
    as_deep = case.depth is None or not isinstance(known, ResidualArchitecture)
    has_pair = known is not None and known.reversible and as_deep and case.coupling == "additive"
    return known.pair if known is not None and has_pair else case.model


def is_ordinary(case: Case) -> bool:
    """Tells whether a case is of a network of the catalogue that has no reversible block."""
    return case.architecture is not None and not case.architecture.reversible
