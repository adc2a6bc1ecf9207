"""What a gate found, in the files where a CI job and a pull request look for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from revbench.compare.findings import Comparison
from revbench.compare.markdown import comparison_markdown
from revbench.results.files import write_atomically

SUMMARY = "GITHUB_STEP_SUMMARY"  # names the file that GitHub shows as the summary of a job


def write_gate(found: Comparison, folder: Path) -> str | None:
    """Write ``gate.json`` and ``gate.md`` into a run folder, and the Markdown into the summary of a job of GitHub's.

    Returns:
        What could not be written, in one line; None if all was.
    """
    text = comparison_markdown(found)
    try:
        write_atomically(folder / "gate.json", json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
        write_atomically(folder / "gate.md", text)
        if summary := os.environ.get(SUMMARY):
            with open(summary, "a", encoding="utf-8") as file:
                file.write(f"{text}\n")
    except OSError as error:
        return f"what the gate found can't be written to {error.filename or folder}: {error.strerror}"
    return None
