"""Predictions of several models under several strategies, with what fits into a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revbench.case import Case
from revbench.prediction.allocator import caveat_here
from revbench.prediction.depth import deepest
from revbench.prediction.fit import Fit, largest_batch
from revbench.prediction.predictor import Prediction, Predictor


@dataclass(frozen=True)
class Estimates:
    """What ``revbench estimate`` found.

    Attributes:
        predictions: in the order asked for.
        batches: the largest batch, by the case of the prediction; empty unless asked for.
        depths: likewise the deepest network.
        problems: why a case has no prediction.
    """

    predictions: Sequence[Prediction]
    batches: Mapping[Case, Fit]
    depths: Mapping[Case, Fit]
    problems: Mapping[Case, str]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "predictions": [
                {
                    **p.to_json(),
                    "largest_batch": self.batches[p.case].to_json() if p.case in self.batches else None,
                    "deepest": self.depths[p.case].to_json() if p.case in self.depths else None,
                }
                for p in self.predictions
            ],
            "problems": [{"case_id": case.id, "problem": problem} for case, problem in self.problems.items()],
            "caveat": caveat_here() if any(p.case.on_gpu for p in self.predictions) else None,
        }


def estimate_all(
    models: Sequence[str], strategies: Sequence[str], nonreversible: str, fields: Mapping[str, Any], *,
    limit_bytes: int | None = None, depth: bool = False,
) -> Estimates:  # fmt: skip
    """Predict each model under each strategy.

    Args:
        models: as `Case.model`.
        strategies: all that a model supports if empty.
        nonreversible: of every strategy but ``stored``.
        fields: the other fields of the cases.
        limit_bytes: also find the largest batch that fits.
        depth: also find the deepest network that fits.

    Raises:
        UserError: as `predict`.
    """
    predictor = Predictor()
    stored = [Case(model=model, **fields).check() for model in models]  # a mistake is found before anything takes long
    predictions, batches, depths, problems = [], {}, {}, {}
    for base in dict.fromkeys(stored):
        for strategy in strategies or predictor.strategies(base):
            case = base.under(strategy, nonreversible).check()
            try:
                predictions.append(predictor.predict(case))
            except NotImplementedError as error:
                problems[case] = str(error)
                continue
            if limit_bytes is not None:
                batches[case] = largest_batch(case, limit_bytes, predictor=predictor)
                if depth:
                    depths[case] = deepest(case, limit_bytes)
    return Estimates(predictions, batches, depths, problems)
