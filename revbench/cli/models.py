"""``revbench models``: what the catalogue holds."""

from __future__ import annotations

from typing import Any

from revbench.cli.app import app
from revbench.cli.options import Json
from revbench.terminal import say, say_json


@app.command()
def models(as_json: Json = False) -> None:
    """List the catalogue: our parameter counts beside the paper's."""
    import torch

    from revbench.models import CATALOGUE, build_model
    from revbench.paper.published import GOMEZ_2017, TABLE_2

    printed = {row.model: row.parameters_millions for row in TABLE_2}
    found: list[dict[str, Any]] = []
    for name, a in CATALOGUE.items():
        for classes in (10, 100) if a.stem == "cifar" else (a.num_classes,):
            with torch.device("meta"):
                count = sum(p.numel() for p in build_model(name, num_classes=classes).parameters())
            found.append(
                {
                    "model": name, "pair": a.pair, "units": list(a.units), "channels": [a.stem_channels, *a.channels],
                    "bottleneck": a.bottleneck, "image_size": a.image_size, "num_classes": classes, "parameters": count,
                    "published_millions": printed.get(name, {}).get(classes),
                }
            )  # fmt: skip
    if as_json:
        say_json(found)
        return
    header = ("model", "pair", "units", "channels", "bottleneck", "classes", "parameters", "paper, M")
    rows = [
        (
            m["model"], m["pair"], "-".join(map(str, m["units"])), "-".join(map(str, m["channels"])),
            "yes" if m["bottleneck"] else "no", str(m["num_classes"]), f"{m['parameters']:,}", m["published_millions"] or "–",
        )
        for m in found
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [c.rjust(w) if i >= 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        say("  ".join(cells).rstrip())
    say(f"paper: Table 2 of {GOMEZ_2017}; – not in it. It prints 45.2 M for revnet-104, whose rules give 45.4 M.")
