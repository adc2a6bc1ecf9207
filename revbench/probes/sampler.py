"""A value that a thread reads now and then, while something else runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Sampler:
    """Reads a value at an interval in a thread of this process; a context manager.

    Args:
        read: gives the value, or None for none.
        interval_seconds: between the end of one reading and the beginning of the next.

    Attributes:
        samples: seconds since the beginning, and the value.
    """

    def __init__(self, read: Callable[[], int | float | None], interval_seconds: float) -> None:
        self._read = read
        self._interval_seconds = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, int | float | None]] = []

    def __enter__(self) -> Sampler:
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.samples.append((time.perf_counter() - self._began, self._read()))
            if self._over.wait(self._interval_seconds):
                return
