"""Declarations of probes as a reference in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from revbench.probes.declaration import SUMMARIES, Probe

_HEAD = """# Probes and their metrics

Each probe is a pass of its own in a fresh worker process. This page is made from the declarations of the probes;
`revbench probes --markdown` prints it, with those that other packages bring. A metric that can't be had is `null` in a row,
with the reason under the same name and `_reason`.
"""


def summary_of(probes: Iterable[Probe]) -> str:
    """Returns a table of probes: their names, and what they measure."""
    lines = ["| probe | measures |", "|---|---|"]
    lines += [f"| [`{probe.name}`](probes.md#{probe.name}) | {probe.sentence} |" for probe in probes]
    return "\n".join(lines)


def reference_of(probes: Iterable[Probe]) -> str:
    """Returns a page with a table of metrics for each probe."""
    return "\n".join([_HEAD, *(_section(probe) for probe in probes)])


def _section(probe: Probe) -> str:
    lines = [f"## {probe.name}", "", f"It measures {probe.sentence}.{_settings(probe)}", ""]
    lines += ["| metric | what it is | unit | kind | better |", "|---|---|---|---|---|"]
    lines += [
        f"| `{m.name}` | {m.about} | {m.unit.name or '–'} | {m.kind} | {m.better or '–'} |" for m in probe.metrics
    ]
    if any(metric.summarised for metric in probe.metrics):
        names = ", ".join(f"`…_{name}`" for name in SUMMARIES)
        lines += ["", f"Those of kind drift that are samples of draws are medians, and have {names} beside them."]
    if probe.samples:
        lines += ["", f"Samples without a metric: {', '.join(f'`{name}`' for name in probe.samples)}."]
    if probe.series:
        lines += ["", f"Series: {', '.join(f'`{name}`' for name in probe.series)}."]
    return "\n".join([*lines, ""])


def _settings(probe: Probe) -> str:
    said = ""
    if probe.by_default:
        said += " `revbench run` measures it unless told otherwise."
    if probe.takes_group:
        said += " It takes several cases together."
    if probe.resumable:
        said += " It goes on where it was when its run is resumed."
    return said
