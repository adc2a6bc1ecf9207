"""What a training leaves in its run folder, and goes on from: its checkpoints and its series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revbench.results.files import own_folder
from revbench.results.runs import CHECKPOINTS, SERIES
from revbench.training.checkpoint import Checkpoints, largest_checkpoint_bytes, random_states, restore, state_of
from revbench.training.series_file import SeriesFile
from revbench.training.steps import Training


class TrainingRecord:
    """The record of one training; of several processes the first writes, and all take part.

    Made, it has put the training into the state of the newest checkpoint.

    Args:
        folder: of the run; None keeps nothing on disk.
        stem: of the files' names.
        training: what is trained.
        options: with which its series is begun; it can't go on with others.
        every: steps from one checkpoint to the next; none if 0.

    Attributes:
        first: how many steps were done before.

    Raises:
        UserError: a checkpoint of another training, or a folder that can't be used.
    """

    def __init__(
        self, folder: str | None, stem: str, training: Training, options: Mapping[str, Any], *, every: int
    ) -> None:
        ranks, workload = training.ranks, training.workload
        self._training, self._options = training, options
        self._every = every if folder or not ranks.first else 0  # only the first of several has a folder
        self._series: Path | None = None
        self._checkpoints: Checkpoints | None = None
        most_bytes = largest_checkpoint_bytes(workload.model)
        if folder and ranks.first:
            self._series = own_folder(Path(folder), SERIES) / f"{stem}.jsonl"
            if every:
                self._checkpoints = Checkpoints(own_folder(Path(folder), CHECKPOINTS), stem, most_bytes=most_bytes)
        found = self._checkpoints.newest() if self._checkpoints is not None else (None, None)
        state, self._note = ranks.from_first(found, most_bytes=most_bytes)
        self.first = 0
        if state is not None:
            self.first = restore(
                state, workload, scaler=training.scaler, rank=ranks.share.rank, data=training.supply.facts.identity,
                options=options,
            )  # fmt: skip

    @property
    def is_on_disk(self) -> bool:
        """Whether the series is written to a file."""
        return self._series is not None

    def series(self) -> SeriesFile:
        """Returns the series, as far as it is the checkpoint's."""
        return SeriesFile(self._series, keep=self.first)

    def note(self, series: SeriesFile) -> str | None:
        """Returns what a person should know of how the training was gone on with."""
        lost = f"{series.lost} of the series' first {self.first} lines are lost" if series.lost else None
        return "; ".join(note for note in (self._note, lost) if note) or None

    def saves_at(self, done: int) -> bool:
        """Tells whether there is to be a checkpoint after so many steps."""
        return self._every > 0 and done % self._every == 0 and done < self._training.workload.case.training_steps

    def save(self, done: int, series: SeriesFile) -> None:
        """Write a checkpoint; all processes say where their random generators are.

        Raises:
            UserError: it can't be written.
        """
        training, workload = self._training, self._training.workload
        random = training.ranks.of_all(random_states(workload.case.device))
        if self._checkpoints is not None:
            series.sync()
            self._checkpoints.save(
                state_of(
                    workload, done, scaler=training.scaler.state_dict(), random=random,
                    data=training.supply.facts.identity, options=self._options,
                )
            )  # fmt: skip
