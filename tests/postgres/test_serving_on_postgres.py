"""Backends on several machines that share a PostgreSQL: each has a home of its own."""

import signal
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.states import State
from ktrdr.settings import Settings
from tests.broker.node import PrivateNode
from tests.contract.virtual_clock import VirtualClock
from tests.e2e.deployment import Deployment
from tests.e2e.installation import epochs
from tests.e2e.waiting import eventually
from tests.unit.backend_cases import started

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]


async def test_a_process_on_another_machine_is_not_taken_for_dead_until_it_is(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.server_instances.RESTART_GRACE_S", 0.0)
    options: dict[str, Any] = {"clock": VirtualClock(), "database_url": postgres_url}
    async with started(tmp_path / "there", **options) as there:
        async with started(tmp_path / "here", **options) as here:
            operation_id = await here.submit()
            await here.pass_time(10)
            assert here.get(operation_id).owner == here.backend.instance
            assert not there.store.is_interrupted(here.get(operation_id))
        await there.pass_time(5)
        assert there.get(operation_id).owner == there.backend.instance


@pytest.mark.broker
@pytest.mark.fault
@pytest.mark.long
def test_of_two_backends_on_two_machines_one_ends_what_the_other_was_at_when_it_was_killed(
    tmp_path: Path, private_node: PrivateNode, empty_postgres_url: str
) -> None:
    with Deployment(tmp_path, private_node) as deployment:
        blobs = tmp_path / "blobs"
        deployment.variables |= {"KTRDR_DATABASE_URL": empty_postgres_url, "KTRDR_BLOB_STORE": str(blobs)}
        deployment.settings = Settings(
            home=deployment.home,
            models_dir=deployment.models,
            database_url=empty_postgres_url,  # type: ignore[arg-type]  # pydantic makes a secret of it
            blob_store=str(blobs),
        )
        # Both at once, on a database without tables.
        servers = [deployment.start("serve", KTRDR_HOME=str(tmp_path / name)) for name in ("one", "another")]
        for server in servers:
            server.until_said("serving")
        store = deployment.open_store()
        assert sorted(each.pid for each in store.servers()) == sorted(each.process.pid for each in servers)
        deployment.ready_agent("alpha", KTRDR_BLOB_STORE=str(blobs))
        running = deployment.submit(*epochs(40))
        eventually(
            lambda: deployment.has_reached_epoch(1, operation=running),
            within_s=60,
            otherwise=deployment.describe,
        )
        queued = deployment.submit_again(running, [1])
        eventually(
            lambda: all(store.get(each).state is State.QUEUED for each in queued),
            within_s=60,
            otherwise=deployment.describe,
        )
        deployment.submit_again(running, [2])
        servers[0].send(signal.SIGKILL)
        servers[0].process.wait()
        assert [each.pid for each in store.servers()] == [servers[1].process.pid]
        deployment.wait_for_all()
        ended = deployment.operations()
        assert [(each.state, each.attempt) for each in ended] == [(State.COMPLETED, 1)] * 3
        assert sorted(deployment.versions()) == sorted(str(each.model) for each in ended)
        deployment.wait_for_empty_queues()
