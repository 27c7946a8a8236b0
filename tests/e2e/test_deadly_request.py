"""A request that kills every agent which accepts it."""

from pathlib import Path

import pytest

from ktrdr.backend.records import HistoryKind
from ktrdr.backend.states import State
from tests.broker.node import PrivateNode
from tests.e2e.command import Command
from tests.e2e.deployment import Deployment
from tests.e2e.installation import epochs
from tests.e2e.waiting import eventually

pytestmark = [
    pytest.mark.broker,
    pytest.mark.fault,
    pytest.mark.xdist_group("storm"),
    pytest.mark.timeout(400),
]

DEADLY_SEED = Path(__file__).with_name("deadly_seed.py")
DEADLY = 13


class Supervised:
    """An agent that a service manager starts again whenever it has died."""

    def __init__(self, deployment: Deployment, name: str) -> None:
        self._deployment = deployment
        self._name = name
        self._command = self._start()
        self.deaths = 0

    def look(self) -> None:
        """Start it again if it has died."""
        if self._command.process.poll() is not None:
            self.deaths += 1
            self._command = self._start()

    def _start(self) -> Command:
        deployment = self._deployment
        return deployment.start_python(
            *(DEADLY_SEED, str(DEADLY), "agent", "--name", self._name),
            *("--home", deployment.agent_home(self._name)),
            KTRDR_BLOB_STORE=str(deployment.settings.blobs_dir),
        )


def test_a_request_that_kills_its_agent_each_time_fails_with_its_story_and_others_go_on(
    tmp_path: Path, private_node: PrivateNode
) -> None:
    with Deployment(tmp_path, private_node) as deployment:
        deployment.serve()
        deadly = deployment.submit(*epochs(2), seed=DEADLY)
        others = deployment.submit_again(deadly, [1])
        agents = [Supervised(deployment, "alpha")]

        def all_is_over() -> bool:
            for agent in agents:
                agent.look()
            return not deployment.unfinished() and not deployment.queued_messages()

        eventually(all_is_over, within_s=240, otherwise=deployment.describe)
        states = {operation.operation_id: operation.state for operation in deployment.operations()}
        assert states == {deadly: State.FAILED, **dict.fromkeys(others, State.COMPLETED)}
        assert sum(agent.deaths for agent in agents) >= 3

        failed = next(op for op in deployment.operations() if op.operation_id == deadly)
        assert failed.attempt == 3
        story = deployment.history(failed)
        accepted = [entry.attempt for entry in story if entry.kind is HistoryKind.ACCEPTED]
        assert accepted == [1, 2, 3], deployment.describe()
        told = " ".join(entry.message for entry in story)
        assert "agent_restarted" in told or "nothing was heard" in told
        shown = deployment.run("ops", "show", deadly).succeed().stdout
        assert "attempt 3 of 3" in shown, shown
