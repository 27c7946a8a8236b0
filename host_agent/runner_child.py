"""One interpreter that runs `host_agent.runner`, seen from the agent: start it, talk to it, bury it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass

import structlog

from host_agent.frames import Frame
from host_agent.pipe import encode_frame, read_frame
from ktrdr.errors import CodecError, RunnerCrashedError

_OUTPUT_LINES = 40
_MAX_LINE_BYTES = 4096
_EXIT_LIMIT_S = 5.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How runners work."""

    device: str = "auto"
    threads: int = 1
    log_level: str = "info"


class RunnerChild:
    """A running interpreter and the pipe to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._output: deque[str] = deque(maxlen=_OUTPUT_LINES)
        self._killed = False
        self._reading_output = asyncio.create_task(self._read_output())

    @classmethod
    async def spawn(cls, options: RunnerOptions) -> "RunnerChild":
        """Start an interpreter.

        It is a plain new one, in a session of its own. `multiprocessing` would import the user's main module
        in it, so that a script without a main guard would train for ever; a fork of this process would
        inherit its threads' locks.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    # Without the current directory on the path, whose torch.py would otherwise be imported.
                    "-P",
                    "-m",
                    "host_agent.runner",
                    f"--fd={theirs.fileno()}",
                    f"--parent={os.getpid()}",
                    f"--device={options.device}",
                    f"--log-level={options.log_level}",
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=_environment(options.threads),
                )
            try:
                reader, writer = await asyncio.open_connection(sock=ours)
            except BaseException:
                process.kill()
                await process.wait()
                raise
        except BaseException:
            ours.close()
            raise
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can still be talked to."""
        return self._process.returncode is None and not self._reader.at_eof() and not self._killed

    def send(self, frame: Frame) -> None:
        """Say something; it is never so much that one must wait for it to be read."""
        if not self._writer.is_closing():
            self._writer.write(encode_frame(frame))

    async def receive(self) -> Frame:
        """Wait for what it says next.

        Raises:
            RunnerCrashedError: it has ended, or speaks gibberish; it is buried.
        """
        try:
            return await read_frame(self._reader)
        except EOFError:
            raise RunnerCrashedError(await self._cause_of_death()) from None
        except CodecError as error:
            await self.kill()
            raise RunnerCrashedError(f"The runner process wrote nonsense. {error}") from error

    async def kill(self) -> None:
        """End it at once, with all that it started, and wait until it is gone."""
        self._killed = True
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._bury()

    async def close(self) -> None:
        """Tell it to end, which it does at once, and wait until it is gone."""
        self._writer.close()
        try:
            async with asyncio.timeout(_EXIT_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()
        else:
            await self._bury()

    async def _bury(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await self._process.wait()
        # Its own children may hold its output open, but nobody needs to hear them.
        await asyncio.wait([self._reading_output], timeout=_EXIT_LIMIT_S)
        self._reading_output.cancel()
        await asyncio.gather(self._reading_output, return_exceptions=True)

    async def _cause_of_death(self) -> str:
        try:
            async with asyncio.timeout(_EXIT_LIMIT_S):
                code = await self._process.wait()
        except TimeoutError:
            await self.kill()
            code = self._process.returncode or 0
        await self._bury()
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            story = f"The runner process was killed by {name}"
            if name == "SIGKILL":
                story += " (was it out of memory?)"
        else:
            story = f"The runner process ended with exit code {code}"
        output = "\n".join(self._output).strip()
        return f"{story}. Its last output:\n{output}" if output else f"{story}."

    async def _read_output(self) -> None:
        """Keep the end of what it writes to its standard output and error: a crash explains itself there."""
        stream = self._process.stdout
        assert stream is not None
        rest = b""
        while chunk := await stream.read(_MAX_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MAX_LINE_BYTES:]
            for line in lines:
                self._note(line)
        if rest:
            self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._output.append(text)
        _log.debug("runner output", line=text, pid=self.pid)


def _environment(threads: int) -> dict[str, str]:
    # The runner needs no settings: passwords of brokers and databases stay here.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
    number = str(threads)
    return {
        **inherited,
        "OMP_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
        "OPENBLAS_NUM_THREADS": number,
    }
