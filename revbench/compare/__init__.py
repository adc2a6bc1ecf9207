"""A run against a baseline: which cases match, what got worse beyond noise, and whether the gate holds."""

from revbench.compare.findings import CANT_TELL, Comparison, Finding
from revbench.compare.gate_files import write_gate
from revbench.compare.markdown import change_of, comparison_markdown
from revbench.compare.runs import compare_folders, compare_runs, read_finished
from revbench.compare.thresholds import Threshold, thresholds_of, thresholds_of_project

__all__ = [
    "CANT_TELL",
    "Comparison",
    "Finding",
    "Threshold",
    "change_of",
    "compare_folders",
    "compare_runs",
    "comparison_markdown",
    "read_finished",
    "thresholds_of",
    "thresholds_of_project",
    "write_gate",
]
