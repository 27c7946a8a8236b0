"""The plain way for a model: gzip and base64 in one JSON POST to an endpoint that stores it.

As a program this is the endpoint: ``python -m benchmarks.plain_endpoint DIRECTORY PORT``.
"""

import base64
import gzip
import hashlib
import sys
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import Body, FastAPI, HTTPException

from benchmarks.broker import READY
from host_agent.durable import write_durably

_LEVEL = 6
"""Gzip's own default; nine takes longer and saves nothing on weights."""


def send_plainly(url: str, name: str, weights: bytes) -> None:
    """Return once the endpoint has stored the weights."""
    packed = gzip.compress(weights, compresslevel=_LEVEL)
    body = {
        "name": name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "weights": base64.b64encode(packed).decode(),
    }
    httpx.post(url, json=body, timeout=120).raise_for_status()


def _endpoint(directory: Path) -> FastAPI:
    app = FastAPI()

    @app.post("/models")
    def store(body: dict[str, Any] = Body()) -> dict[str, str]:  # noqa: B008 (as FastAPI has it)
        weights = gzip.decompress(base64.b64decode(body["weights"]))
        if hashlib.sha256(weights).hexdigest() != body["sha256"]:
            raise HTTPException(422, "other content")
        write_durably(directory / body["name"], weights)
        return {"stored": body["name"]}

    return app


class _Server(uvicorn.Server):
    async def startup(self, *args: Any, **options: Any) -> None:
        await super().startup(*args, **options)
        sys.stdout.write(f"{READY}\n")


if __name__ == "__main__":
    directory, port = sys.argv[1:]
    _Server(uvicorn.Config(_endpoint(Path(directory)), port=int(port), log_level="warning")).run()
