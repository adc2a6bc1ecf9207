"""Training on real data: where trainings ended, beside the paper, on how many processes, and what may be claimed of that."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from revbench.case import Case
from revbench.case.labels import network_name, strategy_of, title_of, trained_label
from revbench.paper.catalogue import CATALOGUE
from revbench.paper.published import ERRORS, GOMEZ_2017
from revbench.report.charts.training import training_figures
from revbench.report.document import MISSING, Paragraph, Section, Table, leading
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.sections.equivalence import (
    DIFFERENT,
    ENOUGH_SEEDS,
    MARGIN,
    SAME,
    differences,
    equivalence,
    equivalence_table,
    trained_both_ways,
)
from revbench.report.table import Column, lay_out, value_cell, value_column, words
from revbench.training.declared import TRAINING
from revbench.training.sources import FACTORY, HELD_OUT_BATCHES

LEAST_STEPS = 100  # of a training whose end is compared in a sentence
# How a recipe's images or texts are cropped, in words.
_CROPS = {
    "padded": "Images are cropped at random out of themselves with 4 pixels of zeros around, and mirrored half of the time"
    " where a mirrored image has the same label.",
    "resized": "Images are cropped by torchvision's standard crop for ImageNet (RandomResizedCrop, flip; to validate, the"
    " middle of the image scaled to 8/7 of the size).",
    "window": "Windows of the text begin anywhere, and a token is a byte; to validate they follow each other.",
}
_FROM_FACTORY = (
    f"Batches are drawn by the factory, by seed and step; {HELD_OUT_BATCHES} that no step sees are for validation."
)


def section(evidence: Evidence) -> Section | None:
    """Returns the curves, then where they ended, and what may be claimed of that."""
    return Section.of(
        "Training on real data",
        [
            *training_sentences(evidence), *leading(training_figures(evidence)), training_table(evidence),
            processes_table(evidence), equivalence_table(evidence), errors_table(evidence),
        ],
    )  # fmt: skip


def training_table(evidence: Evidence) -> Table | None:
    """Returns where each training run ended."""
    cases = evidence.cases(TRAINING)
    on_gpu = any(case.on_gpu for case in cases)
    several_seeds = len({case.seed for case in cases}) > 1

    def strategy(case: Case) -> str:
        null = f", null {case.ulp}" if case.ulp else ""
        return strategy_of(case) + null + (f", seed {case.seed}" if several_seeds else "")

    def loss(case: Case) -> str:
        return evidence.failure(case, TRAINING) or value_cell(evidence, case, TRAINING["train_loss"])

    columns = [
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy),
        words("Data", lambda case: case.data),
        Column("Batch", lambda case: str(case.batch_size)),
        Column("Steps", lambda case: f"{case.training_steps:,}"),
        Column(TRAINING["train_loss"].title, loss),
        value_column(evidence, TRAINING["train_error"]),
        value_column(evidence, TRAINING["validation_error"]),
        value_column(evidence, TRAINING["step_seconds"]),
        value_column(evidence, TRAINING["peak_bytes"], "Peak memory" if on_gpu else "Memory"),
        *([value_column(evidence, TRAINING["nvml_process_peak_bytes"])] if on_gpu else []),
        value_column(evidence, TRAINING["waiting_share"]),
    ]
    return lay_out(
        "Where each training run ended", columns, [cases], _notes(evidence, cases, on_gpu=on_gpu), name="trainings"
    )


def _notes(evidence: Evidence, cases: Sequence[Case], *, on_gpu: bool) -> list[str]:
    memory = (
        "the most that PyTorch allocated in a step, the data included, and NVML's high-water mark of the process, evaluation and"
        " drift included"
        if on_gpu
        else "the process's resident set, with libraries, data, evaluation and drift"
    )
    return [
        f"Training figures are means over the last tenth of the steps. Memory: {memory}. Waiting: the share of the time that went"
        " into getting batches. A null is the reversible network under stored with one weight moved by one unit in the last"
        " place: what lies within its spread is not a difference of strategy. Step: of trainings one after the other, with"
        " whatever else the machine did; times of cases that took turns stand in the table of time.",
        *dict.fromkeys(words for case in cases if (words := _images(evidence, case))),
        *dict.fromkeys(_FROM_FACTORY if case.data == FACTORY else _CROPS[case.schedule.recipe.crop] for case in cases),
    ]


def processes_table(evidence: Evidence) -> Table | None:
    """Lays out time and memory over the processes of each training that ran on several."""
    cases = [case for case in evidence.cases(TRAINING) if case.world_size > 1 and evidence.launches(case, TRAINING)]
    columns = [
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy_of),
        Column("Processes", lambda case: str(case.world_size)),
        Column("Batch norm over", lambda case: "whole batch" if case.sync_batch_norm else "each process's share"),
        *(
            value_column(evidence, TRAINING[f"rank_{name}_{how}"], f"{head}, min" if how == "min" else how)
            for name, head in (("step_seconds", "Step"), ("peak_bytes", "Memory"))
            for how in ("min", "median", "max")
        ),
    ]
    notes = [
        "Step: the median of each process; memory: its peak; then the smallest, the middle and the largest of all processes."
    ]
    if any(" " in (evidence.word(case, TRAINING["rank_environment_ids"]) or "") for case in cases):
        notes.append("The processes ran on machines that differ; the first one's is described here.")
    return lay_out("Trainings on several processes", columns, [cases], notes, name="processes")


def _images(evidence: Evidence, case: Case) -> str:
    """Returns how many training images or tokens of how many, and how many for validation."""
    items = "tokens" if case.item == "token" else "images"
    names = (f"train_{items}", f"train_{items}_available", f"validation_{items}")
    used, there, held_out = (evidence.value(case, TRAINING[name]) for name in names)
    if used is None or there is None or held_out is None:
        return ""
    of = f" of {there.median:,.0f}" if there.median != used.median else ""
    return f"{case.data}: {used.median:,.0f}{of} {items} to train on, {held_out.median:,.0f} to validate."


def errors_table(evidence: Evidence) -> Table | None:
    """Returns Tables 3 and 4 of the paper, and our errors beside them: a column for each data set and way of training."""
    ended: dict[tuple[str, Case], list[float]] = {}
    for case in evidence.cases(TRAINING):
        found = evidence.value(case, TRAINING["validation_error"])
        if case.architecture is not None and case.item == "image" and not case.ulp and found is not None:
            ended.setdefault((case.model, _way(case)), []).append(found.median)
    if not ended:
        return None
    ways = list(dict.fromkeys(way for _, way in ended))

    def ours(way: Case) -> Column[str]:
        def cell(model: str) -> str:
            errors = ended.get((model, way))
            return f"{100 * statistics.fmean(errors):.2f}" if errors else MISSING

        return Column(trained_label(way, ways), cell)

    def published(data: str) -> Column[str]:
        return Column(f"{data}, paper", lambda model: ERRORS.get(model, {}).get(data, MISSING))

    columns = [words("Network", title_of), *map(published, ("CIFAR-10", "CIFAR-100", "ImageNet")), *map(ours, ways)]
    models = [name for name in CATALOGUE if name in ERRORS or any(trained == name for trained, _ in ended)]
    notes = [
        f"Paper: Tables 3 and 4 of {GOMEZ_2017} (CIFAR after 80,000 steps, ImageNet top-1 after 600,000, single"
        " crop). Ours: validation error at the end, mean over seeds, in columns of their own: other data, or fewer steps, are"
        f" not the paper's figure. {MISSING}: not trained, or not published."
    ]
    return lay_out("Classification error, % (the paper's Tables 3 and 4)", columns, [models], notes, name=names.ERRORS)


def _way(case: Case) -> Case:
    """Returns on what and how a network was trained: what makes two errors comparable, and a mean over seeds one of something."""
    known = case.architecture
    classes = case.num_classes or getattr(known, "num_classes", None)
    return case.replace(model="", seed=0, num_classes=classes)


def training_sentences(evidence: Evidence) -> Iterator[Paragraph]:
    """Returns one sentence for each RevNet that was trained both ways: where it ended, beside its nulls, and what that shows."""
    for case, seeds in trained_both_ways(evidence).items():
        if case.training_steps < LEAST_STEPS:
            yield Paragraph(
                f"{network_name(case)} was trained for {case.training_steps:,} steps on {case.data}, too few to compare where"
                f" the strategies end: that takes {LEAST_STEPS} steps and {ENOUGH_SEEDS} seeds."
            )
            continue
        reconstructed, stored = (statistics.fmean(e[name] for e in seeds) for name in ("reconstructed", "stored"))
        said = (
            f"{network_name(case)}, trained for {case.training_steps:,} steps on {case.data}, ends at a validation error of"
            f" {reconstructed:.1%} reconstructed and {stored:.1%} stored"
        )
        nulls = [error for name, error in seeds[0].items() if name.startswith("null")]
        if len(seeds) > 1:
            said += f" (means over {len(seeds)} seeds)"
        elif nulls:
            apart = f"{min(nulls):.1%} to {max(nulls):.1%}" if len(nulls) > 1 else f"{nulls[0]:.1%}"
            said += f"; the null, which differs from stored by one unit in the last place of one weight, at {apart}"
        if len(seeds) < ENOUGH_SEEDS:
            said += f"; a claim that both strategies end at the same error takes {ENOUGH_SEEDS} seeds"
        elif (verdict := equivalence(differences(seeds)).verdict) == SAME:
            said += f"; the two are the same within {100 * MARGIN:.0f} point"
        elif verdict == DIFFERENT:
            said += f"; the two differ by more than {100 * MARGIN:.0f} point"
        else:
            said += f"; that the two are the same within {100 * MARGIN:.0f} point is not shown"
        yield Paragraph(f"{said}.")
