"""A model of 50 MB from the end of its run to where it stays, against gzip, base64 and one JSON POST."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from pydantic import SecretStr

from benchmarks.installation import Installation, installation
from benchmarks.measure import Result, alternate_async, median_ratio
from benchmarks.noop_runner import FINISHED_AT, random_weights
from benchmarks.plain_endpoint import send_plainly
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import serving
from ktrdr.blobs.directory import DirectoryBlobStore
from tests.broker.ports import free_ports

_BYTES = 50_000_000
_ROUNDS = 4
_TOKEN = SecretStr("benchmark-of-large-models-over-http")
_LANES = {"any": "a shared directory", "gpu": "the backend's HTTP endpoint"}
"""One agent serves each, by which the model goes one way or the other."""


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    weights = random_weights(_BYTES)
    async with installation() as system:
        plain_url = await _plain_endpoint(system)
        store = DirectoryBlobStore(system.settings.blobs_dir)
        app = create_app(store, token=_TOKEN, max_blob_bytes=2 * _BYTES)
        async with serving(app, "127.0.0.1", 0) as (host, port):
            size = f"--weights-bytes={_BYTES}"
            await system.agent("near", size, KTRDR_LANES="any")
            await system.agent(
                "far",
                size,
                KTRDR_LANES="gpu",
                KTRDR_BLOB_STORE=f"http://{host}:{port}",
                KTRDR_BLOB_TOKEN=_TOKEN.get_secret_value(),
            )
            counted = iter(range(1000))

            async def plainly() -> None:
                await asyncio.to_thread(send_plainly, plain_url, f"model-{next(counted)}", weights)

            after_run: dict[str, list[float]] = {lane: [] for lane in _LANES}
            *_, plain = await alternate_async(
                *(_trained(system, lane, after_run[lane]) for lane in _LANES), plainly, rounds=_ROUNDS
            )
    return [_result(how, after_run[lane][1:], plain) for lane, how in _LANES.items()]


def _result(how: str, ours: list[float], plain: list[float]) -> Result:
    mine, its = statistics.median(ours), statistics.median(plain)
    faster = 1 / median_ratio(ours, plain)
    return Result(
        f"{_BYTES / 1e6:.0f} MB of weights by {how}: run ended → persisted",
        mine,
        "gzip, base64 and one JSON POST",
        its,
        "≥ 5 x as fast",
        faster >= 5,
        f"{faster:.1f} x as fast",
    )


def _trained(system: Installation, lane: str, times: list[float]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        record = await system.run(lane)
        times.append(time.monotonic() - record.metrics[FINISHED_AT])

    return run


async def _plain_endpoint(system: Installation) -> str:
    directory = system.processes.directory / "plain"
    directory.mkdir()
    (port,) = free_ports(1)
    endpoint = system.processes.python("-m", "benchmarks.plain_endpoint", str(directory), str(port))
    await asyncio.to_thread(system.processes.wait_ready, endpoint)
    return f"http://127.0.0.1:{port}/models"
