"""Where trainings ended, beside the paper, on how many processes, and what may be claimed of that."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from scipy import stats

from revbench import paper
from revbench.case import Case
from revbench.models.catalogue import CATALOGUE
from revbench.recipes import RECIPES
from revbench.report.document import MISSING, Paragraph, Table
from revbench.report.evidence import Evidence
from revbench.report.figures import is_resnet
from revbench.report.steps import cell
from revbench.titles import arithmetic_of, strategy_of, title_of
from revbench.units import human_bytes, human_seconds

ENOUGH_SEEDS = 5  # for a claim that two errors are the same
MARGIN = 0.01  # of validation error: less than this is called the same
# How a recipe's images are cropped, in words.
_CROPS = {
    "padded": "Images are cropped at random out of themselves with 4 pixels of zeros around, and mirrored half of the time"
    " where a mirrored image has the same label.",
    "resized": "Images are cropped by torchvision's standard crop for ImageNet (RandomResizedCrop, flip; to validate, the"
    " middle of the image scaled to 8/7 of the size).",
}


def training_table(evidence: Evidence) -> Table | None:
    """Where each training run ended."""
    cases = evidence.cases("training")
    if not cases:
        return None
    cuda = any(case.device != "cpu" for case in cases)
    several_seeds = len({case.seed for case in cases}) > 1
    percent: Callable[[float], str] = lambda v: f"{v:.1%}"  # noqa: E731
    rows = []
    for case in cases:
        strategy = strategy_of(case) + (f", null {case.ulp}" if case.ulp else "")
        rows.append(
            [
                title_of(case.model), strategy + (f", seed {case.seed}" if several_seeds else ""), case.data,
                str(case.batch_size), f"{case.training_steps:,}",
                evidence.failure(case, "training") or cell(evidence, case, "training", "train_loss", lambda v: f"{v:.3f}"),
                cell(evidence, case, "training", "train_error", percent),
                cell(evidence, case, "training", "validation_error", percent),
                cell(evidence, case, "training", "step_seconds", human_seconds),
                *(cell(evidence, case, "training", name, human_bytes) for name in _memory_metrics(cuda)),
                cell(evidence, case, "training", "waiting_share", percent),
            ]
        )  # fmt: skip
    memory = (
        "the most that PyTorch allocated in a step, images included, and NVML's high-water mark of the process, evaluation and"
        " drift included"
        if cuda
        else "the process's resident set, with libraries, images, evaluation and drift"
    )
    notes = [
        f"Training figures are means over the last tenth of the steps. Memory: {memory}. Waiting: the share of the time that went"
        " into getting batches. A null is the stored RevNet with one weight moved by one unit in the last place: what lies within"
        " its spread is not a difference of strategy.",
        *dict.fromkeys(words for case in cases if (words := _images(evidence, case))),
        *dict.fromkeys(_CROPS[RECIPES[case.recipe].crop] for case in cases),
    ]
    columns = (
        "Network", "Strategy", "Data", "Batch", "Steps", "Training loss", "Training error", "Validation error", "Step",
        *(("Peak memory", "NVML") if cuda else ("Memory",)), "Waiting",
    )  # fmt: skip
    return Table("Where each training run ended", columns, rows, 3, notes)


def _memory_metrics(cuda: bool) -> Sequence[str]:
    return ("peak_bytes", "nvml_process_peak_bytes") if cuda else ("peak_bytes",)


def processes_table(evidence: Evidence) -> Table | None:
    """Time and memory over the processes of each training that ran on several."""
    cases = [case for case in evidence.cases("training") if case.world_size > 1 and evidence.launches(case, "training")]
    if not cases:
        return None
    rows = []
    for case in cases:
        figures = [
            cell(evidence, case, "training", f"rank_{name}_{how}", show)
            for name, show in (("step_seconds", human_seconds), ("peak_bytes", human_bytes))
            for how in ("min", "median", "max")
        ]
        norm = "whole batch" if case.sync_batch_norm else "each process's share"
        rows.append([title_of(case.model), strategy_of(case), str(case.world_size), norm, *figures])
    notes = [
        "Step: the median of each process; memory: its peak; then the smallest, the middle and the largest of all processes."
    ]
    kinds = {
        str(row.metrics.get("rank_environment_ids", "")) for case in cases for row in evidence.launches(case, "training")
    }  # fmt: skip
    if any(" " in kind for kind in kinds):
        notes.append("The processes ran on machines that differ; the first one's is described here.")
    columns = (
        "Network", "Strategy", "Processes", "Batch norm over", "Step, min", "median", "max", "Memory, min", "median", "max",
    )  # fmt: skip
    return Table("Trainings on several processes", columns, rows, 2, notes)


def _images(evidence: Evidence, case: Case) -> str:
    """How many training images of how many, and how many for validation."""
    names = ("train_images", "train_images_available", "validation_images")
    used, there, held_out = (evidence.value(case, "training", name) for name in names)
    if used is None or there is None or held_out is None:
        return ""
    of = f" of {there.median:,.0f}" if there.median != used.median else ""
    return f"{case.data}: {used.median:,.0f}{of} images to train on, {held_out.median:,.0f} to validate."


def errors_table(evidence: Evidence) -> Table | None:
    """Tables 3 and 4 of the paper, and our errors beside them: a column for each data set and way of training."""
    ended: dict[tuple[str, Case], list[float]] = {}
    for case in evidence.cases("training"):
        if case.model in CATALOGUE and not case.ulp and (found := evidence.value(case, "training", "validation_error")):
            ended.setdefault((case.model, _way(case)), []).append(found.median)
    if not ended:
        return None
    published = ("CIFAR-10", "CIFAR-100", "ImageNet")
    ours = list(dict.fromkeys(way for _, way in ended))
    differing = [name for name in _UNNAMED if len({getattr(way, name) for way in ours}) > 1]
    rows = []
    for model in CATALOGUE:
        if model in paper.ERRORS or any(trained == model for trained, _ in ended):
            printed = paper.ERRORS.get(model, {})
            values = [ended.get((model, way)) for way in ours]
            rows.append(
                [
                    title_of(model), *(printed.get(data, MISSING) for data in published),
                    *(f"{100 * statistics.fmean(v):.2f}" if v else MISSING for v in values),
                ]
            )  # fmt: skip
    notes = [
        f"Paper: Tables 3 and 4 of {paper.GOMEZ_2017} (CIFAR after 80,000 steps, ImageNet top-1 after 600,000, single"
        " crop). Ours: validation error at the end, mean over seeds, in columns of their own: other data, or fewer steps, are"
        f" not the paper's figure. {MISSING}: not trained, or not published."
    ]
    columns = ("Network", *(f"{data}, paper" for data in published), *(_in_words(way, differing) for way in ours))
    return Table("Classification error, % (Tables 3 and 4)", columns, rows, 1, notes)


# Fields of a case that a column's head names only where columns differ in them.
_UNNAMED = (
    "num_classes", "recipe", "image_size", "device", "memory_format", "compile", "accumulate", "clip_norm", "world_size",
    "sync_batch_norm",
    "tf32_matmul", "tf32_convolution", "cudnn_benchmark", "deterministic", "threads", "allocator",
)  # fmt: skip


def _way(case: Case) -> Case:
    """On what and how a network was trained: what makes two errors comparable, and a mean over seeds one of something."""
    known = CATALOGUE.get(case.model)
    classes = case.num_classes or (known.num_classes if known else None)
    return case.replace(model="", seed=0, num_classes=classes)


def _in_words(case: Case, differing: Sequence[str]) -> str:
    words = [case.data, strategy_of(case), f"{case.training_steps:,} steps"]
    if case.data_images:
        words.append(f"{case.data_images:,} images")
    if case.batch_size != RECIPES[case.recipe].batch_size:
        words.append(f"batch {case.batch_size}")
    if (arithmetic := arithmetic_of(case)) != "float32":
        words.append(arithmetic)
    words += [f"{name}={getattr(case, name)}" for name in differing]
    return ", ".join(words)


def findings(evidence: Evidence) -> list[Paragraph]:
    """One sentence for each RevNet that was trained both ways: where it ended, beside its nulls, and what that shows."""
    found = []
    for case, seeds in _trained_both_ways(evidence).items():
        reconstructed, stored = (statistics.fmean(e[name] for e in seeds) for name in ("reconstructed", "stored"))
        words = (
            f"{title_of(case.model)}, trained for {case.training_steps:,} steps on {case.data}, ends at a validation error of"
            f" {reconstructed:.1%} reconstructed and {stored:.1%} stored"
        )
        nulls = [error for name, error in seeds[0].items() if name.startswith("null")]
        if len(seeds) > 1:
            words += f" (means over {len(seeds)} seeds)"
        elif nulls:
            apart = f"{min(nulls):.1%} to {max(nulls):.1%}" if len(nulls) > 1 else f"{nulls[0]:.1%}"
            words += f"; stored, but for one unit in the last place of one weight, at {apart}"
        if len(seeds) < ENOUGH_SEEDS:
            words += f"; a claim that the two are the same takes {ENOUGH_SEEDS} seeds"
        elif equivalence(_differences(seeds))[2] == "yes":
            words += f"; the two are the same within {100 * MARGIN:.0f} point"
        else:
            words += f"; that the two are the same within {100 * MARGIN:.0f} point is not shown"
        found.append(Paragraph(f"{words}."))
    return found


def _trained_both_ways(evidence: Evidence) -> dict[Case, list[dict[str, float]]]:
    """Of each RevNet and each seed that was trained stored and reconstructed: validation errors at the end, by
    ``stored``, ``reconstructed`` and ``null N``.
    """
    groups: dict[Case, dict[int, dict[str, float]]] = {}
    for case in evidence.cases("training"):
        of_a_pair = not is_resnet(case) and case.strategy in ("stored", "reconstructed")
        if of_a_pair and (found := evidence.value(case, "training", "validation_error")):
            by_seed = groups.setdefault(case.stored().replace(seed=0, ulp=0), {})
            by_seed.setdefault(case.seed, {})[f"null {case.ulp}" if case.ulp else case.strategy] = found.median
    both = {
        case: [errors for errors in by_seed.values() if {"stored", "reconstructed"} <= errors.keys()]
        for case, by_seed in groups.items()
    }
    return {case: seeds for case, seeds in both.items() if seeds}


def _differences(seeds: Sequence[dict[str, float]]) -> list[float]:
    return [errors["reconstructed"] - errors["stored"] for errors in seeds]


def equivalence_table(evidence: Evidence) -> Table | None:
    """Whether stored and reconstructed end at the same error: an equivalence test over seeds, or why there is none."""
    rows = [
        [title_of(case.model), case.data, str(len(seeds)), *equivalence(_differences(seeds))]
        for case, seeds in _trained_both_ways(evidence).items()
    ]
    if not rows:
        return None
    notes = [
        "Reconstructed minus stored, seed by seed, in points of validation error. Same: both one-sided t-tests of a difference"
        f" beyond ± {100 * MARGIN:.0f} point reject at 5 % (Schuirmann 1987), from {ENOUGH_SEEDS} seeds on whose differences are"
        " not all alike, or all 0. Anything else is no claim, either way."
    ]
    columns = ("Network", "Data", "Seeds", "Mean difference", "90 % interval", "Same error?")
    return Table("Do stored and reconstructed end at the same error?", columns, rows, 2, notes)


def equivalence(differences: Sequence[float]) -> tuple[str, str, str]:
    """Mean, interval and verdict of paired differences."""
    mean = statistics.fmean(differences)
    shown = f"{100 * mean:+.2f}"
    if len(differences) < 2:
        return shown, MISSING, f"not tested: at least {ENOUGH_SEEDS} seeds"
    error = statistics.stdev(differences) / len(differences) ** 0.5
    half = float(stats.t.ppf(0.95, len(differences) - 1)) * error
    interval = f"{100 * (mean - half):+.2f} to {100 * (mean + half):+.2f}"
    if len(differences) < ENOUGH_SEEDS:
        return shown, interval, f"not tested: at least {ENOUGH_SEEDS} seeds"
    if error < 1e-9 and abs(mean) >= 1e-9:
        return shown, MISSING, "not shown: the differences are all alike, so nobody knows how they scatter"
    return shown, interval, "yes" if mean - half > -MARGIN and mean + half < MARGIN else "not shown"
