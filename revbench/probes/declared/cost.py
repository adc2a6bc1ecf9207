"""What a step costs: its time, memory, operations and energy."""

from __future__ import annotations

from revbench.probes.declaration import Metric, Probe
from revbench.probes.declared.builders import bytes_metric, process_bytes, word
from revbench.probes.reconciliation import CPU_CHAIN, GPU_CHAIN, LEVELS, Gap
from revbench.units import BYTES, CELSIUS, CHANGE, COUNT, FLOPS, JOULES, MEGAHERTZ, PERCENT, RATE, SECONDS, WATTS

PHASES = ("forward", "backward", "optimizer")  # of a training step
ALLOCATOR_KINDS = ("requested", "allocated", "reserved")  # what PyTorch's CUDA allocator counts


def _seconds() -> tuple[Metric, ...]:
    """Returns the metrics of a step and its phases."""
    heads = {"step": "Step", "forward": "Forward", "backward": "Backward", "optimizer": "Optimizer"}
    return tuple(
        Metric(
            f"{name}_seconds",
            SECONDS,
            f"of {'a whole step' if name == 'step' else f'its {name} phase'}, median",
            "time",
            "lower",
            head,
        )
        for name, head in heads.items()
    )


TIME = Probe(
    name="time",
    function="revbench.probes.clock:measure_time",
    sentence="seconds of a training step and of its phases; cases that are compared take turns in one process",
    takes_group=True,
    by_default=True,
    private_options=("baton",),
    metrics=(
        *_seconds(),
        Metric("items_per_second", RATE, "of a step, over its median", head="Items a second"),
        word("item", "what they are: images, tokens, or whatever a factory's batch has"),
        Metric("rounds", COUNT, "steps that were timed; every sample is kept"),
        Metric("turns", COUNT, "of so many steps each, see `steps_per_turn`"),
        Metric("steps_per_turn", COUNT, "that follow each other; the samples stand turn after turn"),
        Metric("cases_in_turn", COUNT, "that took turns in one process; 1 of a case that was timed alone"),
        word("session", "the same of all cases that took turns"),
        Metric("minor_faults_per_step", RATE, "page faults without a disk, of the worker"),
        Metric("other_cpu_cores", RATE, "cores that other processes kept busy meanwhile"),
        Metric("stolen_cpu_cores", RATE, "cores that a virtual machine wanted and did not get"),
        Metric("quota_share", PERCENT, "of the time, in which the quota of a container held the worker back"),
        Metric("preemptions_per_second", RATE, "how often the kernel took the core from the worker"),
        Metric("cpu_clock_megahertz", MEGAHERTZ, "of the processor at the end, mean of its cores"),
        Metric(
            "kernel_busy_share", PERCENT, "on a GPU, time of a profiled step in which a kernel ran, over that of a step"
        ),
        Metric("launch_bound", COUNT, "on a GPU, 1 if that share is below 80 %: then the host is what is timed"),
        Metric("sm_clock_megahertz", MEGAHERTZ, "on a GPU, while steps are queued"),
        Metric("temperature_celsius", CELSIUS, "of the GPU, the highest then"),
        Metric("throttle_reasons", COUNT, "on a GPU, NVML's bit mask of all reasons then"),
        Metric("other_processes", COUNT, "that compute on the same GPU"),
    ),
    lines=(
        "{step_seconds} a step (forward {forward_seconds}, backward {backward_seconds}; {rounds} steps),"
        " {items_per_second} {item}s a second",
        "{step_seconds} a step (forward {forward_seconds}, backward {backward_seconds}; {rounds} steps)",
    ),
)


def _gap(gap: Gap) -> Metric:
    about = f"gap from {LEVELS[gap.below]} to {LEVELS[gap.above]}: {gap.words}"
    return Metric(gap.name, BYTES, about, "process bytes", head=gap.head)


MEMORY = Probe(
    name="memory",
    function="revbench.probes.memory:measure_memory",
    sentence="bytes of live tensors by phase, of the allocator, of the process and of the device, and the gaps between them",
    by_default=True,
    metrics=(
        bytes_metric("peak_bytes", "the most bytes of live tensors in the step", LEVELS["peak_bytes"]),
        *(
            bytes_metric(f"{phase}_peak_bytes", f"the same in the {phase} phase", phase.capitalize())
            for phase in PHASES
        ),
        *(word(f"{phase}_peak_place", f"the module at which the peak of {phase} stands") for phase in PHASES),
        bytes_metric("steady_bytes", "alive throughout: parameters, buffers, optimizer state and the batch", "Steady"),
        bytes_metric(
            "activation_peak_bytes", "the peak above that: activations, gradients, temporaries", "Above steady"
        ),
        bytes_metric(
            "activation_peak_without_gradients_bytes", "the same, had the parameters' gradients been made elsewhere"
        ),
        bytes_metric("kept_bytes", "what forward leaves for backward"),
        bytes_metric("parameter_bytes", "parameters and buffers"),
        bytes_metric("gradient_bytes", "gradients of the parameters, after backward"),
        bytes_metric("optimizer_state_bytes", "what the optimizer keeps from step to step"),
        bytes_metric("batch_bytes", "inputs and targets"),
        bytes_metric(
            "allocated_activation_peak_bytes",
            "what the allocator gave out above the steady state, with what a kernel takes and gives back inside one operation",
            "Allocated",
        ),
        process_bytes("rss_before_bytes", "resident set of the worker before its first step"),
        process_bytes("rss_bytes", "on the CPU, resident set after an untouched step", LEVELS["rss_bytes"]),
        process_bytes("rss_peak_bytes", "the worker's high-water mark", "RSS"),
        process_bytes(
            "unique_set_bytes", "on the CPU, memory that no other process shares", LEVELS["unique_set_bytes"]
        ),
        *(
            bytes_metric(f"{phase}_{kind}_{what}", f"on a GPU, {kind} {when} {phase}")
            for phase in PHASES
            for kind in ALLOCATOR_KINDS
            for what, when in (("peak_bytes", "at most during"), ("bytes", "at the end of"))
        ),
        bytes_metric(
            "requested_peak_bytes",
            "on a GPU, the most that the step asked the allocator for",
            LEVELS["requested_peak_bytes"],
        ),
        bytes_metric(
            "allocated_peak_bytes", "on a GPU, the most that the allocator gave out", LEVELS["allocated_peak_bytes"]
        ),
        process_bytes("reserved_peak_bytes", "on a GPU, the most that the allocator held", "Reserved"),
        bytes_metric("steady_allocated_bytes", "on a GPU, given out before the step"),
        Metric("allocation_retries", COUNT, "on a GPU, of the allocator", "process bytes", "lower"),
        Metric("allocator_ooms", COUNT, "on a GPU, allocations that failed", "process bytes", "lower"),
        process_bytes("nvml_process_bytes", "on a GPU, what NVML says of the process", "NVML process"),
        process_bytes(
            "nvml_device_used_bytes", "on a GPU, in use on the whole device", LEVELS["nvml_device_used_bytes"]
        ),
        *map(_gap, (*GPU_CHAIN, *CPU_CHAIN)),
    ),
    lines=(
        "{peak_bytes} at peak, {activation_peak_bytes} above the steady state",
        "{allocated_activation_peak_bytes} above the steady state, by the allocator",
    ),
    series=("operation", "live_bytes", "gradient_bytes", "phase"),
)

FLOPS_OF_STEP = Probe(
    name="flops",
    function="revbench.probes.flops:measure_flops",
    sentence="floating-point operations of a training step: products, an add-multiply being two",
    by_default=True,
    metrics=(
        Metric("step_flops", FLOPS, "of a whole step", "count", "lower", "Operations"),
        Metric("forward_flops", FLOPS, "of its forward phase", "count", "lower"),
        Metric("backward_flops", FLOPS, "of its backward phase, recomputation included", "count", "lower"),
        word("uncounted_operators", "operators that multiply and have no formula, with their calls"),
        word("counted", "how it was counted, if not as it runs"),
    ),
    lines=("{step_flops} a step at least: no formula for {uncounted_operators}", "{step_flops} a step"),
)

PARAMETERS = Probe(
    name="parameters",
    function="revbench.probes.parameters:measure_parameters",
    sentence="how many parameters a network has, and which strategies it supports",
    metrics=(
        Metric("parameters", COUNT, "scales, shifts and biases included, buffers not", "count", head="Parameters"),
        word("strategies", "those of ours that the network supports"),
    ),
    lines=("{parameters} parameters",),
)

LEAK = Probe(
    name="leak",
    function="revbench.probes.leak:measure_leak",
    sentence="whether memory grows from step to step",
    metrics=(
        bytes_metric(
            "leak_bytes_per_step", "slope of what is alive at the end of a step; on a GPU of what is allocated"
        ),
        bytes_metric("leak_low_bytes_per_step", "lower end of its interval of confidence of 95 %"),
        bytes_metric("leak_high_bytes_per_step", "upper end"),
        Metric("steps", COUNT, "that count"),
    ),
    samples=("end_of_step_bytes",),
    lines=("{leak_bytes_per_step} more at the end of each step ({steps} steps)",),
)

NVML = Probe(
    name="nvml",
    function="revbench.probes.cuda_memory:measure_nvml",
    sentence="what NVML says of the process while it trains, and what asking costs; on a GPU",
    metrics=(
        process_bytes("nvml_process_peak_bytes", "high-water mark of the process", "Process"),
        process_bytes(
            "nvml_device_before_bytes", "in use on the whole device before the worker used it", "Device before"
        ),
        process_bytes("nvml_device_after_bytes", "and after the last step", "Device after"),
        Metric("sampler_interval_seconds", SECONDS, "between two readings"),
        Metric("sampler_slowdown", CHANGE, "what a step takes more while it is read", "time", "lower", "Slow-down"),
    ),
    lines=("{nvml_process_peak_bytes} of the process; sampling costs {sampler_slowdown}",),
    series=("seconds", "nvml_process_bytes"),
)

MEMORY_HISTORY = Probe(
    name="memory_history",
    function="revbench.probes.cuda_memory:measure_memory_history",
    sentence="the CUDA allocator's own history of one step; on a GPU",
    metrics=tuple(bytes_metric(f"{kind}_peak_bytes", f"the most that was {kind}", kind) for kind in ALLOCATOR_KINDS),
    lines=("{allocated_peak_bytes} allocated, {reserved_peak_bytes} reserved at peak",),
    series=("seconds", "requested_bytes", "reserved_bytes"),
)

ENERGY = Probe(
    name="energy",
    function="revbench.probes.energy:measure_energy",
    sentence="joules of a training step, by NVML's counter of the whole GPU; on a GPU",
    metrics=(
        Metric("joules_per_step", JOULES, "median over the windows", "energy", "lower", "Energy"),
        Metric("watts", WATTS, "median over the windows", "energy", None, "Power"),
        Metric("windows", COUNT, "of many steps each"),
        Metric("window_seconds", SECONDS, "of each, at least"),
    ),
    lines=("{joules_per_step} a step, {watts}",),
)
