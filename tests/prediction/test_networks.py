"""Networks that others wrote: predicted as measured, measured as by PyTorch's own tracker and allocator."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from revbench.case import Case
from revbench.prediction import predict
from revbench.probes.flops import measure_flops
from revbench.probes.live_tensors import LiveTensors
from revbench.probes.memory import measure_memory
from revbench.probes.tracked_step import track_step
from revbench.workload import build_workload

HERE = "tests.prediction.networks"
QUICK = (("regnet_y_400mf", 64),)
IMAGES = (
    *QUICK, ("googlenet", 96), ("vit_b_32", 224), ("swin_t", 224), ("convnext_tiny", 64), ("maxvit_t", 224),
    ("inception_v3", 299), ("densenet121", 64), ("mobilenet_v3_small", 64), ("efficientnet_b0", 64), ("mnasnet0_5", 64),
    ("shufflenet_v2_x0_5", 64), ("vgg11", 64),
)  # fmt: skip
TIMM = (
    ("vit_tiny_patch16_224", 224), ("resnet26d", 64), ("mixer_s32_224", 224), ("convnext_atto", 64),
    ("mobilenetv4_conv_small", 64), ("swin_tiny_patch4_window7_224", 224),
)  # fmt: skip


def of_images(factory: str, name: str, size: int) -> Case:
    return Case(model=f"{HERE}:{factory}(name={name})", batch_size=2, image_size=size, num_classes=10)


CASES = {
    **{name: ("torchvision", of_images("of_torchvision", name, size)) for name, size in IMAGES},
    **{f"timm {name}": ("timm", of_images("of_timm", name, size)) for name, size in TIMM},
    "GPT-2": ("transformers", Case(model=f"{HERE}:of_transformers(name=gpt2)", batch_size=2)),
    "GPT-2 with dropout": ("transformers", Case(model=f"{HERE}:of_transformers(name=gpt2,dropout=0.1)", batch_size=2)),
    "Llama": ("transformers", Case(model=f"{HERE}:of_transformers(name=llama)", batch_size=2)),
    "iUNet": ("iunets", Case(model=f"{HERE}:of_iunets", batch_size=2)),
    "MomentumNet": ("momentumnet", Case(model=f"{HERE}:of_momentumnet", batch_size=2)),
}
MARKS = {name: [] if name in dict(QUICK) else [pytest.mark.slow] for name in CASES}


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in CASES])
def test_predicted_as_measured(name: str) -> None:
    library, case = CASES[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it is of the extra networks")
    predicted = predict(case)
    workload = build_workload(case)
    inputs, targets = workload.batch()
    workload.step(inputs, targets)
    measured = track_step(workload, inputs, targets)
    assert predicted.step.peak_bytes == pytest.approx(measured.peak_bytes, rel=1e-4)
    assert predicted.step.kept_bytes == pytest.approx(measured.kept_bytes, rel=1e-4)
    workload.optimizer.zero_grad(set_to_none=True)
    theirs, ours = MemTracker(), LiveTensors()
    theirs.track_external(workload.model, workload.optimizer, inputs, targets)
    ours.track(workload.model, workload.optimizer.state, inputs, targets)
    with theirs, ours:  # at once, since theirs keeps graphs alive that nobody back-propagates
        workload.step(inputs, targets)
    expected = theirs.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert ours.peak_bytes == pytest.approx(expected, rel=1e-3)
    assert measured.peak_bytes <= ours.peak_bytes
    counted = measure_flops(build_workload(case), progress=lambda _: None).metrics
    assert predicted.step_flops == counted["step_flops"]
    assert predicted.uncounted_operators == counted.get("uncounted_operators")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["iUNet", "MomentumNet", "Llama", "swin_t"])
def test_live_tensors_fit_into_what_the_allocator_gave_out(name: str) -> None:
    library, case = CASES[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it is of the extra networks")
    found = measure_memory(build_workload(case), progress=lambda _: None).metrics
    live, allocated = found["activation_peak_bytes"], found["allocated_activation_peak_bytes"]
    assert 0 < live <= allocated  # type: ignore[operator]
