"""How soon the command line answers, trains, and is done; as whole processes."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Result, alternate
from benchmarks.sample import ROOT

_KTRDR = [sys.executable, "-m", "ktrdr.cli.main"]
FORMER_JOB_S = 10.0
"""The best that was measured of the former system: a 10-epoch job as a process."""
FORMER_MEMORY_BYTES = 790e6


def measure() -> list[Result]:
    help_s, bare_s = alternate(
        lambda: _run([*_KTRDR, "--help"]), lambda: _run([sys.executable, "-c", "pass"]), rounds=7
    )
    torch_s = [_run([sys.executable, "-c", "import torch"]) for _ in range(4)][1:]
    first, whole = zip(*(_train() for _ in range(4)), strict=True)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    help_median = statistics.median(help_s)
    job_s = statistics.median(whole[1:])
    return [
        Result(
            "ktrdr --help",
            help_median,
            "an empty Python program",
            statistics.median(bare_s),
            "≤ 0.4 s",
            help_median <= 0.4,
        ),
        Result(
            "ktrdr train → first epoch",
            statistics.median(first[1:]),
            "python -c 'import torch'",
            statistics.median(torch_s),
            "–",
            True,
        ),
        Result(
            "ktrdr train, 10 epochs, the whole process",
            job_s,
            "the former system (10-17 s, measured elsewhere)",
            FORMER_JOB_S,
            "≤ 0.2 … 0.34",
            job_s <= 17 / 5,
            f"largest process {children / 1e6:.0f} MB; former system {FORMER_MEMORY_BYTES / 1e6:.0f} MB",
        ),
    ]


def _run(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def _train() -> tuple[float, float]:
    """Return the seconds to the first epoch and to the end."""
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        process = subprocess.Popen(
            [
                *_KTRDR,
                "train",
                "strategies/eurusd_momentum.yaml",
                "--seed",
                "7",
                "--set",
                "training.epochs=10",
                "--set",
                "training.early_stopping=false",
            ],
            cwd=ROOT,
            env={**os.environ, "KTRDR_HOME": home, "KTRDR_MODELS_DIR": str(Path(home) / "models")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = None
        assert process.stderr is not None
        for line in process.stderr:
            if first is None and line.strip().startswith("epoch "):
                first = time.perf_counter() - started
        if process.wait() or first is None:
            raise RuntimeError(f"ktrdr train failed with status {process.returncode}")
        return first, time.perf_counter() - started
