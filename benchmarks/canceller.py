"""A program that cancels the operations whose ids it reads, as any other process on the same database."""

import sys
import time
from pathlib import Path

from benchmarks.broker import READY
from ktrdr.backend.store import OperationStore
from ktrdr.settings import load_settings


def main(pipe: str) -> None:
    with OperationStore.open(load_settings()) as store:
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        with Path(pipe).open() as orders:
            for line in orders:
                operation_id = line.strip()
                sys.stdout.write(f"cancelled {operation_id} {time.monotonic()}\n")
                store.cancel(operation_id, "benchmark")


if __name__ == "__main__":
    main(sys.argv[1])
