"""A Report as one HTML file that opens offline."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from revbench.report.colours import GRID, INK, ON_DARK, SOFT
from revbench.report.document import Cards, Figure, Paragraph, Report, Table
from revbench.report.render.breaking import BREAK, breakable

_LONG = 16  # letters of a word that may be broken
_ORDER = (".svg", ".pdf", ".csv", ".tex")
_KINDS = {Paragraph: "paragraph", Table: "table", Figure: "figure", Cards: "cards"}


def render_html(report: Report, files: AbstractSet[str] = frozenset()) -> str:
    """Returns the page; every text of the report is escaped, and its pictures are inside. One script runs on it, ours, and the
    page forbids any other.

    Args:
        report: what stands on it.
        files: the figures and tables that lie beside it, as ``figures/name.svg``: what it links to.
    """
    script = _template("report.js")
    beside: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(files, key=lambda file: _ORDER.index(Path(file).suffix)):
        beside[Path(file).stem].append(file)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            kind_of=lambda block: next(name for kind, name in _KINDS.items() if isinstance(block, kind)),
            number=lambda section: next(i for i, one in enumerate(report.sections, 1) if one is section),
            picture=_inlined,
            style=Markup(f"{_palettes()}\n{_template('report.css')}"),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            beside=beside,
        )
    )


def render_tables(tables: Sequence[Table]) -> str:
    """Returns some tables for a cell of a notebook, which has its own style; every text of them is escaped."""
    return _environment().get_template("tables.html.j2").render(tables=tables)


def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("revbench.report.render"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    found.filters["breakable"] = _breakable
    return found


def _breakable(cell: str) -> Markup:
    return Markup("<wbr>").join(breakable(cell, _LONG).split(BREAK))


def _template(name: str) -> str:
    return (resources.files("revbench.report.render") / "templates" / name).read_text(encoding="utf-8").strip()


def _palettes() -> str:
    """Returns the colours of pictures, for a light page and for a dark one."""
    light = " ".join(f"--{colour[1:]}: {colour};" for colour in ON_DARK)
    dark = " ".join(f"--{colour[1:]}: {instead};" for colour, instead in ON_DARK.items())
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def _inlined(figure: Figure) -> Markup:
    """Returns a picture (drawn by us, or by a package that is installed here) for a page with others: its ids are its own, and
    what is drawn in black is drawn in the page's own ink."""
    svg = figure.svg
    for colour, of_page in ((INK, "currentColor"), (SOFT, "var(--soft)"), (GRID, "var(--grid)")):
        svg = svg.replace(colour, of_page)
    for colour in ON_DARK:
        svg = svg.replace(colour, f"var(--{colour[1:]})")
    prefix = figure.name
    svg = re.sub(r' id="([^"]+)"', rf' id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    return Markup(svg)
