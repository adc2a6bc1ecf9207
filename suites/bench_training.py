"""A pair trained on real images, and one on text, with stored and with reconstructed activations, beside its null."""

import pytest

from revbench.suite_cases import training_cases

BUDGET_SECONDS = 45


@pytest.mark.revbench_cases(of=training_cases)
def test_training(revbench, case):
    plan = revbench.plan
    revbench.measure(
        case,
        "training",
        data_path=plan.path_of(case),
        validation_images=plan.size.validation_images,
        timeout_seconds=24 * 3600,
    )
