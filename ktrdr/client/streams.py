"""What a server tells as it happens, over as many connections as it takes."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import httpx
from httpx_sse import EventSource, SSEError

from ktrdr.client.server import API, Server
from ktrdr.errors import DatabaseUnavailableError, KtrdrError, ServerError

_SILENT_S = 45.0
"""Three times as long as a server is silent at most."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_END = "end"


async def follow(
    server: Server, path: str, name: str, *, on_away: Callable[[str], None]
) -> AsyncGenerator[str, None]:
    """Yield the data of events of that name until the end of the stream.

    A connection that is lost, because the server is started again for example, is made anew, and goes on
    behind the last event that had an id.

    Args:
        server: who tells.
        path: of the stream.
        name: of the events.
        on_away: told, once for each time, that the server cannot be reached.

    Raises:
        KtrdrError: the server refuses.
    """
    last_id, pause_s, is_away = "", _FIRST_PAUSE_S, False
    timeout = httpx.Timeout(5.0, read=_SILENT_S)
    async with httpx.AsyncClient(timeout=timeout, headers=server.headers, verify=server.trust) as client:
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
            try:
                async with client.stream("GET", f"{server.url}{API}{path}", headers=headers) as answer:
                    if answer.status_code == httpx.codes.NO_CONTENT:
                        return
                    if not answer.is_success:
                        await answer.aread()
                        raise server.error_of(answer)
                    pause_s, is_away = _FIRST_PAUSE_S, False
                    async for event in EventSource(answer).aiter_sse():
                        last_id = event.id or last_id
                        if event.event == _END:
                            return
                        if event.event == name:
                            yield event.data
            except (httpx.TransportError, SSEError) as error:
                reason = str(error) or type(error).__name__
            except KtrdrError as error:
                if not _passes(error):
                    raise
                reason = error.message
            else:
                reason = "it has closed the connection"
            if not is_away:
                on_away(f"the server cannot be reached ({reason}); trying again until it is back")
                is_away = True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _passes(error: KtrdrError) -> bool:
    return isinstance(error, DatabaseUnavailableError) or (
        isinstance(error, ServerError) and error.code == "too-many-requests"
    )
