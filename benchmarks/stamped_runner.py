"""The runner process, whose progress says when it was made; a program of its own, in place of the runner."""

import time
from dataclasses import replace

from host_agent import runner
from ktrdr.training.progress import Progress

MADE_AT = "made_at"
"""The metric that says so, in seconds of this machine's monotonic clock."""


class _StampingObserver(runner._Observer):
    def on_progress(self, progress: Progress) -> None:
        super().on_progress(replace(progress, metrics={**progress.metrics, MADE_AT: time.monotonic()}))


if __name__ == "__main__":
    runner._Observer = _StampingObserver  # type: ignore[misc]
    runner.main()
