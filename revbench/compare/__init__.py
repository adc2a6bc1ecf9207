"""A run against a baseline: which cases match, what got worse beyond noise, and whether the gate holds."""

from revbench.compare.findings import Comparison, Finding
from revbench.compare.markdown import comparison_markdown
from revbench.compare.runs import compare_folders, compare_runs
from revbench.compare.thresholds import Threshold, thresholds_of, thresholds_of_project

__all__ = [
    "Comparison",
    "Finding",
    "Threshold",
    "compare_folders",
    "compare_runs",
    "comparison_markdown",
    "thresholds_of",
    "thresholds_of_project",
]
