"""Short ways to write the commonest metrics."""

from __future__ import annotations

from revbench.probes.declaration import Kind, Metric
from revbench.units import BYTES, WORDS


def bytes_metric(name: str, about: str, head: str = "", kind: Kind = "bytes") -> Metric:
    """Returns a metric of bytes, of which fewer are better."""
    return Metric(name, BYTES, about, kind, "lower", head)


def process_bytes(name: str, about: str, head: str = "") -> Metric:
    """Returns a metric of bytes of a process or a device, which scatter."""
    return bytes_metric(name, about, head, "process bytes")


def word(name: str, about: str, head: str = "") -> Metric:
    """Returns a word or a sentence."""
    return Metric(name, WORDS, about, head=head)
