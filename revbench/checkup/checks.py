"""The checks by name, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
import torch._dynamo

from revbench.checkup import of_arithmetic, of_gradients, of_randomness, of_traces
from revbench.checkup.declared import Answer, Finding
from revbench.checkup.dropouts import called_dropouts_off
from revbench.checkup.subject import Subject, Unanswerable, repeatable_seeds
from revbench.errors import first_line

RUNS: Mapping[str, Callable[[Subject], Answer]] = {
    "gradient": of_gradients.gradient,
    "twin": of_gradients.twin,
    "inverse": of_gradients.inverse,
    "buffers": of_traces.buffers,
    "dropout": of_randomness.dropout,
    "generator": of_randomness.generator,
    "autocast": of_arithmetic.autocast,
    "autocast_cache": of_arithmetic.autocast_cache,
    "input_gradient": of_gradients.input_gradient,
    "input_without_gradient": of_gradients.input_without_gradient,
    "shared_input": of_gradients.shared_input,
    "output_in_place": of_gradients.output_in_place,
    "frozen": of_gradients.frozen,
    "parameter_hooks": of_traces.parameter_hooks,
    "module_hooks": of_gradients.module_hooks,
    "accumulation": of_gradients.accumulation,
    "autograd_grad": of_gradients.autograd_grad,
    "second_derivative": of_gradients.second_derivative,
    "evaluation": of_gradients.evaluation,
    "determinism": of_gradients.determinism,
    "float32": of_arithmetic.float32,
    "depth": of_arithmetic.depth,
    "memory": of_arithmetic.memory,
    "readable": of_traces.readable,
}
_WITH_DROPOUT = ("dropout", "generator", "memory")  # the others are made without


def check(subject: Subject, name: str) -> Finding:
    """Returns what one check finds; what the network raises is a finding, too.

    Nothing that was compiled for another check is left: after a few copies of one network `torch.compile` gives up, and what is
    looked at would no longer be compiled.
    """
    torch._dynamo.reset()
    try:
        with repeatable_seeds(), nullcontext() if name in _WITH_DROPOUT else called_dropouts_off():
            verdict, words = RUNS[name](subject)
    except Unanswerable as error:
        return Finding(name, "can't tell", str(error))
    except Exception as error:
        return Finding(name, "failed", f"raises {type(error).__name__}: {first_line(error)}")
    return Finding(name, verdict, words)
