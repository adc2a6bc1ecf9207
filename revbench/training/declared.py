"""What a training comes to."""

from __future__ import annotations

from revbench.probes.declaration import Metric, Probe
from revbench.probes.declared.builders import bytes_metric, process_bytes, word
from revbench.units import COUNT, NATS, PERCENT, SECONDS

TRAINING = Probe(
    name="training",
    function="revbench.training.loop:measure_training",
    sentence="a training on real images or text: its curves, its errors at the end, its time and memory",
    resumable=True,
    private_options=("data_path", "folder", "stem", "loaders"),
    metrics=(
        Metric("train_loss", NATS, "mean of the last tenth of the steps", "accuracy", "lower", "Training loss"),
        Metric("train_error", PERCENT, "mean of the last tenth of the steps", "accuracy", "lower", "Training error"),
        Metric("validation_loss", NATS, "at the end", "accuracy", "lower"),
        Metric("validation_error", PERCENT, "at the end", "accuracy", "lower", "Validation error"),
        Metric("step_seconds", SECONDS, "of a step, median", "time", "lower", "Step"),
        process_bytes("peak_bytes", "on a GPU the most that was allocated in a step; on the CPU the resident set"),
        process_bytes("nvml_process_peak_bytes", "high-water mark of the process", "NVML"),
        bytes_metric("data_bytes", "of what is trained on, in the device's memory"),
        Metric("training_seconds", SECONDS, "since this process began or went on", "time", "lower"),
        Metric("waiting_share", PERCENT, "of that, for batches", "time", "lower", "Waiting"),
        Metric("series_share", PERCENT, "of that, for writing the series", "time", "lower"),
        Metric("train_images", COUNT, "that were used"),
        Metric("train_images_available", COUNT, "that there are"),
        Metric("validation_images", COUNT, "that were used"),
        Metric("train_tokens", COUNT, "of a text, that are trained on"),
        Metric("train_tokens_available", COUNT, "that there are"),
        Metric("validation_tokens", COUNT, "that are validated on"),
        Metric("validation_items", COUNT, "of what a factory draws, that are validated on"),
        word(
            "data_sha256",
            "of the training images and labels; under imagenet of the files' names and labels; of a text of its part",
        ),
        word("weights_sha256", "of all parameters and buffers at the end"),
        Metric("resumed_at_step", COUNT, "0 of a training that was never interrupted"),
        word("resume_note", "what was not as it should be"),
        word("drift_problem", "why a measurement of drift failed"),
        *(
            Metric(f"rank_step_seconds_{how}", SECONDS, f"of several processes, {how}", "time", "lower")
            for how in ("min", "median", "max")
        ),
        *(process_bytes(f"rank_peak_bytes_{how}", f"of several processes, {how}") for how in ("min", "median", "max")),
        word("rank_environment_ids", "of the machines of several processes"),
    ),
    samples=("rank_step_seconds", "rank_peak_bytes"),
    lines=("validation error {validation_error}, loss {validation_loss}; {step_seconds} a step",),
    series=(
        "step",
        "loss",
        "error",
        "learning_rate",
        "step_seconds",
        "peak_bytes",
        "nvml_process_peak_bytes",
        "validation_loss",
        "validation_error",
        "angle_degrees",
        "smooth_relative_error",
    ),
)
