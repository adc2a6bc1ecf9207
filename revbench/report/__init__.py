"""Renders runs as HTML, PDF and Markdown, from what is on disk and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from revbench.errors import RunEnded, UserError
from revbench.report.document import Card, Cards, Fact, Figure, Paragraph, Section, Table
from revbench.report.evidence import Evidence
from revbench.results.benchmark_json import write_benchmark_json
from revbench.results.files import write_atomically
from revbench.results.runs import read_run

if TYPE_CHECKING:
    from revbench.compare import Comparison
    from revbench.runner import Session


__all__ = [
    "Card",
    "Cards",
    "Evidence",
    "Fact",
    "Figure",
    "Paragraph",
    "Section",
    "Table",
    "Written",
    "report_if_it_ends_early",
    "write_report",
]


@dataclass(frozen=True)
class Written:
    """The files of a report, and what a person should know of those that are missing."""

    paths: Sequence[Path]
    notes: Sequence[str]


@contextmanager
def report_if_it_ends_early(session: Session) -> Iterator[None]:
    """Inside, what ends the measuring early leaves the report of what was measured so far."""
    try:
        yield
    except RunEnded:  # the system wants this process gone, soon
        raise
    except BaseException:
        folder = session.journal.folder
        if session.journal.run.rows:
            with suppress(UserError):  # what ended the run is what has to be said
                write_report([folder], folder)
        raise


def write_report(
    folders: Sequence[Path],
    output: Path,
    *,
    names: Mapping[Path, str] | None = None,
    relative_to: str | None = None,
    comparison: Comparison | None = None,
) -> Written:
    """Render the report of one or more runs into a folder.

    Args:
        folders: run folders.
        output: gets ``report.html``, ``report.pdf``, ``report.md``; each figure as SVG and PDF in ``figures/``,
            each table as CSV and LaTeX in ``tables/``; and, if it is one of the run folders, ``benchmark.json``.
        names: what the machines of some of the folders are called, instead of by their hardware.
        relative_to: the name of the machine that the others stand beside; the first if not given.
        comparison: with a baseline; a section of its own.

    Returns:
        What was written. Without typst the PDF is missing and a note says so.

    Raises:
        UserError: a folder that is no run, holds no rows or is given twice, no machine of this name, or an output that can't be
            written, or that holds a link in place of one of these folders.
    """
    from revbench.report.build import build_report
    from revbench.report.long_tables import shortened
    from revbench.report.render.files import write_files
    from revbench.report.render.html import render_html
    from revbench.report.render.markdown import render_markdown
    from revbench.report.render.pdf import render_pdf

    whole = build_report(folders, names=names, relative_to=relative_to, comparison=comparison)
    report = shortened(whole)
    paths, notes = [output / "report.html", output / "report.md"], list(report.notes)
    try:
        beside = write_files(whole, output)
        write_atomically(paths[0], render_html(report, beside))
        write_atomically(paths[1], render_markdown(report))
        pdf, problem = render_pdf(report)
        if pdf is not None:
            write_atomically(output / "report.pdf", pdf)
            paths.insert(1, output / "report.pdf")
        else:
            notes.append(f"no PDF: {problem}")
        for folder in folders:
            if folder.resolve() == output.resolve():
                write_benchmark_json(read_run(folder))
                paths.append(output / "benchmark.json")
    except OSError as error:
        raise UserError(f"can't write the report into {output}: {error.strerror or error}") from error
    return Written(paths, notes)
