"""What the doctor looks for, each thing declared once; no torch is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from revbench.probes.declaration import Metric, Probe
from revbench.probes.declared.builders import word
from revbench.units import COUNT

Verdict = Literal["passed", "failed", "can't tell"]
Answer = tuple[Verdict, str]  # with what was seen, in words


@dataclass(frozen=True)
class Check:
    """One thing that is looked for.

    Attributes:
        name: as the command line and rows have it.
        question: what is asked, as the head of a row.
        means: what a failure means for training.
        mend: what to do about it.
    """

    name: str
    question: str
    means: str
    mend: str


CHECKS: Mapping[str, Check] = {
    check.name: check
    for check in (
        Check(
            "gradient",
            "Is the gradient the derivative of the loss, in float64?",
            "Every step goes in another direction than down the loss.",
            "Train without reconstruction until it is mended; if only some weights are named, look at what they feed.",
        ),
        Check(
            "twin",
            "Is it the gradient of the same network with stored activations?",
            "Reconstruction and plain autograd train different networks.",
            "Use the package's switch for stored activations.",
        ),
        Check(
            "inverse",
            "Does the inverse bring back what entered?",
            "Backward computes the gradient at other activations than forward had.",
            "Use float64 or fewer blocks; look for a block that is not a function of its input alone.",
        ),
        Check(
            "buffers",
            "Does backward leave buffers (batch-norm statistics) alone?",
            "Running statistics move twice or more a step: what is evaluated is not what that momentum was chosen for.",
            "Set 1 - momentum to its n-th root, n being how often a batch is counted, or normalise without running statistics.",
        ),
        Check(
            "dropout",
            "Are random numbers inside the blocks the same in forward and backward?",
            "With dropout, or anything that draws, the gradient is that of another mask: wrong, and nothing says so.",
            "Set dropout to 0 inside the blocks, or move it outside.",
        ),
        Check(
            "generator",
            "Does backward leave the random generator where forward left it?",
            "From the second step on, runs with stored and reconstructed activations see other random numbers.",
            "Seed each step, or compare runs by their distributions only.",
        ),
        Check(
            "autocast",
            "Does it train under autocast (bfloat16), with backward outside it?",
            "Mixed-precision training stops with an error, or computes another gradient.",
            "Call backward inside the autocast region, or train without autocast.",
        ),
        Check(
            "autocast_cache",
            "Do all weights get a gradient under autocast, with backward inside it?",
            "Weights whose casts were cached without a graph are frozen silently.",
            "torch.autocast(…, cache_enabled=False), or clear_autocast_cache() before backward.",
        ),
        Check(
            "input_gradient",
            "Is the gradient of the input right, for a leaf and for what a trunk made?",
            "What is before the blocks is trained by a wrong gradient, or input gradients (saliency, adversaries) are wrong.",
            "Put a module before the blocks, or give a copy (x.clone()).",
        ),
        Check(
            "input_without_gradient",
            "Are weights trained where the input of the blocks needs no gradient?",
            "A frozen or missing stem silently freezes the blocks, too.",
            "x.requires_grad_() on what enters the blocks.",
        ),
        Check(
            "shared_input",
            "May the input be used elsewhere, too?",
            "A skip connection around the blocks reads freed or overwritten memory.",
            "Give the blocks a copy (x.clone()).",
        ),
        Check(
            "output_in_place",
            "Is an output that is changed in place noticed?",
            "An in-place operation after the blocks makes reconstruction start from other activations.",
            "Let the operation after the blocks write a new tensor.",
        ),
        Check(
            "frozen",
            "May some parameters be frozen?",
            "Fine-tuning with frozen layers stops with an error, or trains by a wrong gradient.",
            "Freeze by a learning rate of 0 instead of requires_grad_(False).",
        ),
        Check(
            "parameter_hooks",
            "Do hooks on parameters fire once, with the whole gradient?",
            "Gradient clipping, sparsification or communication in hooks acts twice, or on a part.",
            "Act on .grad after backward instead.",
        ),
        Check(
            "module_hooks",
            "Are hooks on modules respected, in both passes?",
            "Hooks that change what passes (adapters, pruning) act in one pass only: the gradient is another network's.",
            "Wrap the module instead of hooking it.",
        ),
        Check(
            "accumulation",
            "May it be called twice before backward?",
            "Siamese networks, several losses or accumulated micro-batches train by a wrong gradient.",
            "One backward pass after each call.",
        ),
        Check(
            "autograd_grad",
            "Does torch.autograd.grad return the gradients, and leave .grad alone?",
            "Meta-learning, gradient penalties and some optimizers get None, or double counting.",
            "loss.backward() and .grad instead.",
        ),
        Check(
            "second_derivative",
            "Is the second derivative right, or refused?",
            "Gradient penalties and Hessian products are silently wrong.",
            "Use stored activations for those passes.",
        ),
        Check(
            "evaluation",
            "Is the gradient right in eval() mode?",
            "Fine-tuning with frozen statistics trains by a wrong gradient.",
            "Train in train() mode.",
        ),
        Check(
            "determinism",
            "Do two identical steps give identical bits?",
            "Runs can't be repeated or bisected.",
            "torch.use_deterministic_algorithms(True) finds the operation.",
        ),
        Check(
            "float32",
            "Is the gradient in float32 that in float64, to rounding?",
            "Reconstruction has lost the activations: the gradient is that of another input.",
            "Fewer blocks, normalisation at the start of each, float64, or some kept activations.",
        ),
        Check(
            "depth",
            "Is it still, several times as deep?",
            "The network can't be made deeper: activations overflow or are lost on the way back, without an error.",
            "Stay below that depth, or use a coupling that grows errors less.",
        ),
        Check(
            "memory",
            "Does memory stay the same when it gets deeper?",
            "Something of each block is kept: depth costs memory, if less than stored activations do.",
            "Look for what holds inputs or outputs of each block: save_for_backward, attributes, hooks.",
        ),
        Check(
            "readable",
            "Can input and output be read after backward?",
            "Metrics on outputs, or a second use of the input, read freed memory: garbage, or the death of the process.",
            "Read copies (y.detach().clone()) that were made before.",
        ),
    )
}


@dataclass(frozen=True)
class Finding:
    """What was found of one check.

    Attributes:
        check: its name.
        verdict: ``passed``, ``failed`` or ``can't tell``.
        words: what was seen, in one line.
    """

    check: str
    verdict: Verdict
    words: str

    def to_json(self) -> dict[str, Any]:
        """Returns it with what it means and the mend, of a failure."""
        check = CHECKS[self.check]
        found = {"check": self.check, "question": check.question, "verdict": self.verdict, "found": self.words}
        return {**found, "means": check.means, "mend": check.mend} if self.verdict == "failed" else found


VERDICTS: Sequence[Verdict] = ("passed", "failed", "can't tell")

DOCTOR = Probe(
    name="doctor",
    function="revbench.checkup.examining:examine",
    sentence="whether any fault that is known of reversible networks is in this one",
    metrics=(
        Metric("passed", COUNT, "checks that found nothing wrong", "count", "higher"),
        Metric("failed", COUNT, "checks that found a fault", "count", "lower"),
        Metric("unknown", COUNT, "checks that can't be made of this network"),
        word("failures", "the checks that failed, by name"),
    ),
    lines=("{failed} of the checks failed: {failures}", "{passed} checks passed, none failed, {unknown} can't be made"),
    series=("check", "verdict", "found"),
)
