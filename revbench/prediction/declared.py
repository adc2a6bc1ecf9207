"""What a prediction comes to."""

from __future__ import annotations

from revbench.probes.declaration import Metric, Probe
from revbench.probes.declared.builders import bytes_metric
from revbench.units import BYTES, COUNT, PERCENT

FIT = Probe(
    name="fit",
    function="revbench.prediction.fit:measure_fit",
    sentence="the largest batch of several cases that fits into a memory limit, by prediction",
    takes_group=True,
    metrics=(
        Metric("largest_batch_size", COUNT, "0 if not even one item fits", "count", "higher", "Batch"),
        bytes_metric("predicted_peak_bytes", "of that batch, or of one item", "Predicted peak"),
        Metric("margin", PERCENT, "of the limit, left free"),
        Metric(
            "usable_limit_bytes", BYTES, "of the limit, what is there: a GPU that is named after it has a little less"
        ),
    ),
    lines=("{largest_batch_size} items fit, {predicted_peak_bytes} predicted",),
)
