"""Probes: each measures one quantity of a training step, in a pass of its own, and returns a frozen record."""

from revbench.probes.found import Found, Metric, Progress

__all__ = ["Found", "Metric", "Progress"]
