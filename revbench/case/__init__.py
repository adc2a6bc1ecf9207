"""What is measured: the case, its views, what it is called, and which cases belong together; no torch is imported here."""

from revbench.case.definition import DEFAULT_CLASSES, DEFAULT_IMAGE_SIZE, Case, about, check_field, index_in, is_gpu
from revbench.case.factories import Factory
from revbench.case.views import Arithmetic, Backpropagation, Schedule

__all__ = [
    "DEFAULT_CLASSES",
    "DEFAULT_IMAGE_SIZE",
    "Arithmetic",
    "Backpropagation",
    "Case",
    "Factory",
    "Schedule",
    "about",
    "check_field",
    "index_in",
    "is_gpu",
]
