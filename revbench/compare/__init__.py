"""A run against a baseline: which cases match, what got worse beyond noise, and whether the gate holds."""

from revbench.compare.findings import Comparison, Finding
from revbench.compare.runs import compare_folders, compare_runs

__all__ = ["Comparison", "Finding", "compare_folders", "compare_runs"]
