"""The API is what its description says, and nothing that is sent to it is answered by a 5xx."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from ktrdr.backend.api import openapi
from ktrdr.backend.states import State
from ktrdr.backend.submitting import Submitter
from ktrdr.bus.topology import shared_topology
from ktrdr.events.message import Message
from tests.unit.api_cases import URL, Api
from tests.unit.backend_cases import wish

COMMITTED = Path(__file__).parents[2] / "schemas"
PATHS = json.loads((COMMITTED / "openapi.json").read_text())["paths"]
CASES = [
    (method, path, mode)
    for path, methods in PATHS.items()
    for method, described in methods.items()
    for mode in GenerationMode
    if not path.startswith("/api/v1/blobs")
    # Where nothing is given nothing can be wrong, and one wrong id is like another.
    if mode is GenerationMode.POSITIVE
    or "requestBody" in described
    or ("parameters" in described and "{" not in path)
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api.make(tmp_path_factory.mktemp("api"), unprotected=True, api_rate_per_s=0)
    asyncio.run(made.bus.declare(shared_topology()))
    with made.store:
        yield made


@pytest.fixture(scope="module")
def described(api: Api) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", api.app)


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_whatever_is_sent_is_answered_as_described(
    api: Api, described: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    operation = described[path][method]
    known, statuses = {}, set()
    if mode is GenerationMode.POSITIVE and "/dead-letters" in path:
        asyncio.run(api.bury(Message(b"nonsense", "0192-1", "nonsense")))
        known |= {"letter_id": "0192-1"} if "{letter_id}" in path else {}
    if (
        mode is GenerationMode.POSITIVE
        and "{operation_id}" in path
        and not path.endswith(("/events", "/stream"))
    ):
        known["operation_id"] = Submitter(api.settings, api.store).submit(wish()).operation.operation_id

    @given(case=operation.as_strategy(mode, path_parameters=known or None))
    @settings(
        max_examples=3,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answered(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(
            base_url=URL, checks=[not_a_server_error, response_schema_conformance]
        )
        statuses.add(answer.status_code)

    answered()
    assert 403 not in statuses, "nothing gets past the door"
    if "letter_id" in known:
        assert 200 in statuses, "it was there"
    if known and path.endswith("/cancel"):
        assert api.store.get(known["operation_id"]).state is State.CANCELLED


def test_the_committed_description_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert openapi.main(["--check", str(COMMITTED)]) == 0, capsys.readouterr().err


def test_everything_is_described() -> None:
    for path, methods in PATHS.items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert "default" in operation["responses"], (method, path)
            is_open = path.startswith(("/health", "/api/v1/blobs"))
            assert ("security" in operation) is not is_open, (method, path)
