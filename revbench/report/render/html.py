"""A Report as one HTML file that opens offline."""

from __future__ import annotations

import jinja2
from markupsafe import Markup

from revbench.report.document import Figure, Paragraph, Report, Table


def render_html(report: Report) -> str:
    """Returns the page; every text of the report is escaped, and its pictures are inside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("revbench.report.render"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    kinds = {Paragraph: "paragraph", Table: "table", Figure: "figure"}
    return environment.get_template("report.html.j2").render(
        report=report,
        kind_of=lambda block: kinds[type(block)],
        number=lambda section: next(i for i, one in enumerate(report.sections, 1) if one is section),
        picture=Markup,  # drawn by us, or by a package that is installed here
    )
