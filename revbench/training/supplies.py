"""Which supply of batches a case's training has."""

from __future__ import annotations

from revbench.errors import UserError
from revbench.paper.recipes import RECIPES
from revbench.training.batches import FileSupply, MemorySupply, Supply
from revbench.training.data import image_sets, load_images
from revbench.training.drawn import DrawnSupply
from revbench.training.order import Share
from revbench.training.sources import DIGITS, FACTORY, check_data
from revbench.training.text import TextSupply, load_text
from revbench.workload import Workload


def open_supply(
    workload: Workload, source: str, *, image_size: int, validation_limit: int, loaders: int, share: Share
) -> Supply:
    """Returns what a case is trained on: images, read ahead by processes if its recipe crops files, else all in the device's
    memory; a text, if it is of a language model; or what a factory draws.

    Args:
        workload: what is trained; its case says recipe, batch size, seed, device and number of images.
        source: see `revbench.training.data.load_images` and `revbench.training.text.load_text`.
        image_size: height and width in pixels.
        validation_limit: at most so many images to validate, drawn with a fixed seed, or windows of a text, the first; all if 0.
        loaders: processes that read files ahead; none of them if 0. They change no batch.
        share: of each batch.

    Raises:
        UserError: data that can't be used.
    """
    case = workload.case
    check_data(case.model, case.item, source, case.recipe)
    if source == FACTORY:
        return DrawnSupply(workload, share)
    if case.item == "token":
        return TextSupply(case, load_text(source), limit=validation_limit, share=share)
    if RECIPES[case.recipe].crop == "resized":
        if source == DIGITS:
            raise UserError(f"recipe {case.recipe} crops image files, and the digits are none; use --recipe cifar")
        return FileSupply(
            case, image_sets(source), image_size=image_size, validation_limit=validation_limit, loaders=loaders, share=share
        )  # fmt: skip
    images = load_images(source, image_size=image_size, train_limit=case.data_images, validation_limit=validation_limit)
    return MemorySupply(case, images, share)
