"""``revbench models``: what the catalogue holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from revbench.cli.app import app
from revbench.cli.options import Json
from revbench.terminal import say, say_json


@app.command()
def models(as_json: Json = False) -> None:
    """List the catalogue: our parameter counts beside the paper's."""
    import torch

    from revbench.models import CATALOGUE, network_of
    from revbench.paper.published import GOMEZ_2017, TABLE_2
    from revbench.paper.residual import ResidualArchitecture

    printed = {row.model: row.parameters_millions for row in TABLE_2}
    found: list[dict[str, Any]] = []
    for name, known in CATALOGUE.items():
        shapes = [known]
        if isinstance(known, ResidualArchitecture) and known.stem == "cifar":
            shapes.append(dataclasses.replace(known, num_classes=100))
        for a in shapes:
            with torch.device("meta"):
                count = sum(p.numel() for p in network_of(a, "stored").parameters())
            fields = {key: value for key, value in dataclasses.asdict(a).items() if key != "name"}
            published = printed.get(name, {}).get(fields.get("num_classes", 0))
            found.append({"model": name, **fields, "parameters": count, "published_millions": published})
    if as_json:
        say_json(found)
        return
    header = ("model", "pair", "shape", "outputs", "parameters", "paper, M")
    rows = [
        (
            m["model"], m["pair"], _shape(m), f"{m.get('num_classes') or m['vocabulary']:,}", f"{m['parameters']:,}",
            m["published_millions"] or "–",
        )
        for m in found
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [c.rjust(w) if i >= 3 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        say("  ".join(cells).rstrip())
    say(f"paper: Table 2 of {GOMEZ_2017}; – not in it. It prints 45.2 M for revnet-104, whose rules give 45.4 M.")


def _shape(m: Mapping[str, Any]) -> str:
    """Returns what a network is made of, in words."""
    if "blocks" in m:
        return f"{m['blocks']} blocks of {m['width']}"
    channels = "-".join(map(str, (m["stem_channels"], *m["channels"])))
    return f"{'-'.join(map(str, m['units']))} of {channels}{', bottleneck' if m['bottleneck'] else ''}"
