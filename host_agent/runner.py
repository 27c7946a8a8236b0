"""The runner: a process that has torch imported and trains, one job after the other.

Started by the agent as ``python -m host_agent.runner``; everything is said over the socket that it inherits.
"""

import argparse
import faulthandler
import gc
import os
import queue
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from host_agent.endings import Ending, Failed, Trained
from host_agent.failures import ending_of
from host_agent.frames import Cancel, Ended, Progressed, Start
from host_agent.made import leave_model
from host_agent.orphans import die_with_parent
from host_agent.pipe import receive_frame
from host_agent.runner_log import configure_runner_logging
from host_agent.sender import FrameSender
from ktrdr.errors import CodecError
from ktrdr.events.causes import FailureCause
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.progress import Progress

if TYPE_CHECKING:
    from ktrdr.training.executor import TrainingExecutor


def main() -> NoReturn:
    """Serve jobs until the agent closes the pipe."""
    parser = argparse.ArgumentParser(prog="host_agent.runner", description="Started by the host agent.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the agent")
    parser.add_argument("--parent", type=int, required=True, help="process id of the agent")
    parser.add_argument("--device", required=True)
    parser.add_argument("--log-level", required=True)
    options = parser.parse_args()

    # Ctrl-C on a terminal and a service manager reach every process; what it means is for the agent to say.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(options.parent)
    faulthandler.enable()
    os.set_inheritable(options.fd, False)
    pipe = socket.socket(fileno=options.fd)
    control = _Control(pipe)
    sender = FrameSender(pipe)
    configure_runner_logging(options.log_level, sender.log)

    began = time.monotonic()
    # What is imported stays as long as the process: looking for garbage among it takes a sixth of the time.
    gc.disable()
    # Here rather than above: 1.5 s, in which the agent may already end this process.
    from host_agent.devices import describe_device
    from ktrdr.training.executor import TrainingExecutor

    gc.freeze()
    gc.enable()
    executor = TrainingExecutor()
    sender.send(describe_device(options.device, import_seconds=time.monotonic() - began))
    while True:
        start, cancellation = control.next_job()
        ending = _train(executor, start, cancellation, sender)
        sender.send(Ended(run_id=start.run_id, ending=ending))
        control.forget(start.run_id)


class _Control:
    """Reads what the agent says, in a thread of its own, so that it is heard while torch computes."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._jobs: queue.SimpleQueue[tuple[Start, ManualCancellation]] = queue.SimpleQueue()
        self._cancellations: dict[str, ManualCancellation] = {}
        threading.Thread(target=self._read_all, name="control", daemon=True).start()

    def next_job(self) -> tuple[Start, ManualCancellation]:
        """Block until there is a job."""
        return self._jobs.get()

    def forget(self, run_id: str) -> None:
        """Note that a run is over."""
        self._cancellations.pop(run_id, None)

    def _read_all(self) -> NoReturn:
        while True:
            try:
                frame = receive_frame(self._pipe)
            except EOFError:
                # The agent has closed the pipe, or is dead. Nothing here is worth finishing.
                os._exit(0)
            except CodecError as error:
                sys.stderr.write(f"{error}\n")
                sys.stderr.flush()
                os._exit(1)
            match frame:
                case Start():
                    cancellation = ManualCancellation()
                    self._cancellations[frame.run_id] = cancellation
                    self._jobs.put((frame, cancellation))
                case Cancel():
                    if (running := self._cancellations.get(frame.run_id)) is not None:
                        running.cancel()
                case _:
                    pass


class _Observer:
    def __init__(self, run_id: str, sender: FrameSender) -> None:
        self._run_id = run_id
        self._sender = sender
        self.epoch = 0

    def on_progress(self, progress: Progress) -> None:
        self.epoch = progress.epoch
        self._sender.progress(Progressed.of(self._run_id, progress))


def _train(
    executor: "TrainingExecutor", start: Start, cancellation: ManualCancellation, sender: FrameSender
) -> Ending:
    observer = _Observer(start.run_id, sender)
    try:
        model = executor.run(start.job, observer, cancellation)
        if len(model.bundle) > start.max_bundle_bytes:
            return Failed(
                cause=FailureCause.STRATEGY_ERROR,
                message=f"The model has {len(model.bundle):,} bytes, over {start.max_bundle_bytes:,}. "
                "Make the network smaller, or raise KTRDR_MAX_MODEL_BYTES.",
                epoch=observer.epoch,
            )
        leave_model(model, start.bundle)
        return Trained(manifest=model.manifest)
    # Whatever it is, the agent is told, and the next job is served.
    except BaseException as error:
        return ending_of(error, epoch=observer.epoch)


if __name__ == "__main__":
    main()
