"""An installation that is served in a thread, and commands that use it directly or by way of its server."""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typer.testing import CliRunner

from ktrdr.backend.api.server import serving
from ktrdr.backend.tokens import Role
from ktrdr.cli.main import app
from tests.unit.api_cases import Api
from tests.unit.backend_cases import PATIENCE_S

T = TypeVar("T")

_TIMES = re.compile(r"\b\d+(\.\d+)? (s|ms|min|h)( \d+ (s|min))?\b")


@dataclass
class Lossy:
    """Middleware that loses answers of POSTs that were carried out."""

    app: ASGIApp
    count: list[int]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not self.count[0]:
            await self.app(scope, receive, send)
            return
        self.count[0] -= 1

        async def lost(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send({"type": "http.response.start", "status": 502, "headers": []})
            else:
                await send({"type": "http.response.body", "body": b""})

        await self.app(scope, receive, lost)


@dataclass
class ServedApi:
    """The installation, and where it listens."""

    api: Api
    loop: asyncio.AbstractEventLoop
    url: str
    to_lose: list[int] = field(default_factory=lambda: [0])

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done where the server runs."""
        return self.begin(work).result(PATIENCE_S)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """The same, without waiting for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def variables(self, elsewhere: Path | None = None, role: Role = Role.OPERATOR) -> dict[str, str]:
        """Return the environment of commands on its machine, or of those that ask it from a directory."""
        settings = self.api.settings
        if elsewhere is not None:
            return {
                "KTRDR_HOME": str(elsewhere / "no-home"),
                "KTRDR_MODELS_DIR": str(elsewhere / "no-models"),
                "KTRDR_STRATEGIES_DIR": str(elsewhere / "no-strategies"),
                "KTRDR_DATA_DIR": str(settings.data_dir),
                "KTRDR_SERVER": self.url,
                "KTRDR_TOKEN": self.api.token(role),
            }
        return {
            "KTRDR_HOME": str(settings.home),
            "KTRDR_MODELS_DIR": str(settings.models_dir),
            "KTRDR_STRATEGIES_DIR": str(settings.strategies_dir),
            "KTRDR_DATA_DIR": str(settings.data_dir),
            "KTRDR_DEVICE": "cpu",
        }


@dataclass(frozen=True)
class Said:
    """What a command has said."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def without_times(self) -> "Said":
        """Return it without how long ago things were, and without the blanks that align that."""
        stdout, stderr = (re.sub(" +", " ", _TIMES.sub("T", each)) for each in (self.stdout, self.stderr))
        return Said(self.status, stdout, stderr)


def ktrdr(*arguments: str, variables: dict[str, str]) -> Said:
    """Run a command."""
    ran = CliRunner().invoke(app, list(arguments), env=variables)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return Said(ran.exit_code, ran.stdout, ran.stderr)


@contextmanager
def served_in_thread(directory: Path, **settings: Any) -> Iterator[ServedApi]:
    """Serve an installation as long as the block runs."""
    begun = threading.Event()
    found: list[tuple[ServedApi, asyncio.Event]] = []

    async def main() -> None:
        api = Api.make(directory, **settings)
        to_lose, stop = [0], asyncio.Event()
        api.app.add_middleware(Lossy, count=to_lose)
        async with api.at_work(), serving(api.app, "127.0.0.1", 0) as (host, port):
            loop = asyncio.get_running_loop()
            found.append((ServedApi(api, loop, f"http://{host}:{port}", to_lose), stop))
            begun.set()
            await stop.wait()
        api.store.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="served")
    thread.start()
    assert begun.wait(PATIENCE_S)
    served, stop = found[0]
    try:
        yield served
    finally:
        served.loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
