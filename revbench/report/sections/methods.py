"""How each number was measured, how much such numbers scatter here, what the words mean, and what to cite."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from revbench import choices
from revbench.case.labels import way_of
from revbench.paper.published import GOMEZ_2017
from revbench.probes.declared import DRIFT, MEMORY, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.document import Block, Paragraph, Section, Table
from revbench.report.evidence import Evidence
from revbench.training.declared import TRAINING

_METHODS: Mapping[str, tuple[str, str]] = {
    "time": (
        "Time of a step",
        "In a fresh process, after warm-up; on a GPU by events that are read at the end. The strategies of a pair take turns of a"
        " fraction of a second, in an order that is drawn. The median of all steps counts. A ratio is that of turns in one"
        " process; of three launches or more its interval is Student's over the logarithms of the launches' ratios (Kalibera and"
        " Jones 2013), of fewer a bootstrap over turns. It is called unstable if the interval reaches further than 10 % to either"
        " side, or the samples drift or have two modes.",
    ),
    "memory": (
        "Memory of a step",
        "Every tensor's storage is counted from its first use to its end, by phase, in a pass of its own that is not timed. What"
        " the allocator, the process and the device show stands beside it, each gap by its name.",
    ),
    "flops": (
        "Operations",
        "Counted at PyTorch's dispatcher: two for each multiplication with its addition, of convolutions and products of"
        " matrices.",
    ),
    "drift": (
        "Drift of the gradient",
        "The gradient against that of stored in float64, from the same weights, batch and dropout masks, before weight decay. Its"
        " smooth part is that of a pass in which every ReLU and pooling window is frozen to what it did in the reference; the"
        " rest are flips. Quantiles are over draws of weights and batch.",
    ),
    "lipschitz": (
        "Lipschitz constants", "Power iteration on products of the Jacobian with a vector, at the activations of a batch.",
    ),
    "determinism": ("Determinism", "The same step several times, compared bit for bit."),
    "energy": ("Energy", "NVML's counter of the whole GPU's energy, over windows of seconds."),
    "nvml": ("NVML's figures", "The high-water mark of a fresh process, read beside the step."),
    "leak": ("Growth from step to step", "What is alive at the end of each of some steps; the slope with its interval."),
    "fit": (
        "The largest batch",
        "The step is run on tensors without data, which predicts its peak byte for byte; the largest batch whose peak fits is"
        " then timed.",
    ),
    "training": (
        "Training",
        "The paper's recipe, or that of language models. All of one seed see the same batches, and the reversible networks of one"
        " seed start from the same weights. A null is the reversible network under stored with one weight moved by one unit in"
        " the last place.",
    ),
    "parameters": ("Parameters", "Counted in the network as it is built."),
}  # fmt: skip

_TERMS: Sequence[tuple[str, str]] = (
    ("stored", "every activation is kept for the backward pass, as PyTorch does by itself"),
    ("reconstructed", "the activations of reversible blocks are computed again from their outputs"),
    ("rest recomputed", "what can't be inverted is computed again from its input, too"),
    ("checkpointed", "√L activations are kept, and each segment between them is run again"),
    ("recursive", "a chain is halved again and again, so that about log L activations are kept"),
    ("certified", "reconstructed, and the error of each activation is bounded by a second way round"),
    ("last N kept", "reconstructed, but the last N half blocks keep their activations and are not run again"),
    (
        "no tripwire",
        "without the check that a function gives in backward what it gave in forward, whose cost this shows",
    ),
    ("torch_checkpoint", "PyTorch's own torch.utils.checkpoint, about √L segments"),
    ("torch_selective", "PyTorch's selective checkpoint: convolutions and products are kept, the rest is run again"),
    ("torch_budget", "the units compiled as one graph, whose compiler chooses what to keep for half of the memory"),
    ("torch_offload", "activations wait in the host's memory"),
    ("launch", "a fresh process that measures; what is compared over launches has an interval over launches"),
    ("steady", "the memory that is there between steps: parameters, buffers, optimizer state, batch"),
    ("× to stored", "how many times as much as stored: below 1 is less, above 1 is more, in every table"),
    ("unstable", "the samples scatter too much for a claim; the note below the table says why"),
    ("smooth error", "what rounding alone does to a gradient"),
    ("flips", "ReLU units and pooling windows that go another way than in the reference"),
    ("noise of a batch", "how far the gradient of one batch is from that of another, at the same weights"),
    ("ε", "the distance from 1 to the next number of an arithmetic"),
)

# Those of them that are ways to train, which not every run has, and what such a way has in its name.
_OF_WAYS = {
    name: name
    for name in ("rest recomputed", "checkpointed", "recursive", "certified", "no tripwire", *choices.TORCH_STRATEGIES)
} | {"last N kept": "kept"}


def section(evidence: Evidence) -> Section | None:
    """Returns the methods of what was measured, the noise, the terms, and the citation."""
    measured = {row.probe for row in evidence.rows if row.ok}
    rows = [_METHODS[name] for name in _METHODS if name in measured]
    if not rows:
        return None
    blocks: list[Block | None] = [
        Table("How each number was measured", ("Quantity", "Method"), rows, 2, name="methods"),
        _noise(evidence),
    ]
    version = evidence.environment["packages"].get("revbench") or "of a working tree"
    blocks.append(
        Paragraph(f"To cite: {GOMEZ_2017}; and revbench {version}, with the machine and the date of this report.")
    )
    if evidence.cases(TIME, MEMORY, DRIFT, TRAINING):
        ways = " ".join({way_of(case) for case in evidence.cases(TIME, MEMORY, DRIFT, TRAINING)})
        terms = [(term, what) for term, what in _TERMS if (term not in _OF_WAYS or _OF_WAYS[term] in ways)]
        blocks.append(Table("What the words mean", ("Term", "Meaning"), terms, 2, name="terms"))
    return Section.of("Methods and terms", blocks, folded=True)


def _noise(evidence: Evidence) -> Paragraph | None:
    """Says how much times scatter on this machine: from launch to launch, and as ratios."""
    scatter, reach = [], []
    for case in evidence.cases(TIME):
        seconds = [value for row in evidence.launches(case, TIME) if (value := row.number("step_seconds"))]
        if len(seconds) > 2:
            scatter.append(statistics.stdev(seconds) / statistics.fmean(seconds))
        ratio = (
            None
            if case.strategy == "stored" or has_its_own_table(evidence, case)
            else evidence.time_ratio(case, case.stored())
        )
        if ratio is not None and ratio.high is not None:
            reach.append(ratio.high / ratio.value - 1)
    said = []
    if scatter:
        said.append(f"the same case scatters by {statistics.median(scatter):.1%} from launch to launch")
    if reach:
        said.append(f"the interval of a ratio to stored reaches {statistics.median(reach):.1%} to either side")
    return Paragraph(f"Noise of times on this machine, medians over cases: {'; '.join(said)}.") if said else None
