"""Commands that work with a real `ktrdr serve`, from a directory in which nothing else is."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from tests.e2e.command import Command
from tests.e2e.installation import MOMENTUM, Installation, epochs
from tests.e2e.test_http_api import url_of


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_client_cancels_and_follows_over_a_restart_of_the_server(installation: Installation) -> None:
    serve = installation.start("serve")
    url = url_of(serve)
    token = installation.start("tokens", "create", "me", "--role", "operator").succeed().stdout.strip()
    elsewhere = {
        "KTRDR_SERVER": url,
        "KTRDR_TOKEN": token,
        "KTRDR_HOME": str(installation.root / "elsewhere"),
        "KTRDR_MODELS_DIR": str(installation.root / "elsewhere"),
    }

    def client(*arguments: str) -> Command:
        return installation.start(*arguments, **elsewhere)

    # It ends when it is told to, however fast the machine is.
    train = client("train", str(MOMENTUM), "--mode", "local", *epochs(100_000)).until_said("epoch ")
    watch = client("ops", "watch").until_said("epoch ")
    logs = client("ops", "logs", "--follow", "--json")
    logs.until(lambda: logs.stdout, "it showed a line")
    serve.send(signal.SIGKILL)
    for each in (train, watch, logs):
        each.until_said("the server cannot be reached")
    again = installation.start("serve", "--listen", re.sub("^http://", "", url))
    watch.until_said("attempt 2 of 3")
    logs.until(lambda: '"attempt": 2' in logs.stdout, "it showed a line of the second attempt")
    train.send(signal.SIGINT)
    assert train.wait() == 130, train.stderr
    assert watch.wait() == 1
    assert f"{installation.operation().operation_id} was cancelled" in watch.stderr
    assert installation.operation().state is State.CANCELLED
    logs.succeed()
    read = {1: 0, 2: 0}
    for line in map(json.loads, logs.stdout.splitlines()):
        assert line["number"] == read[line["attempt"]] + line["left_out"] + 1
        read[line["attempt"]] = line["number"]

    few = ("--end", "2017-03-31", *epochs(2))
    trained = client("train", str(MOMENTUM), "--mode", "local", *few).succeed()
    assert f"{url}/api/v1/models/eurusd_momentum/EURUSD_1h_v1/report" in trained.stdout
    predicted = client("models", "predict", "eurusd_momentum", "--last", "3", "--json").succeed()
    assert [sorted(row) for row in predicted.json()] == [["BUY", "HOLD", "SELL", "timestamp"]] * 3
    assert not (installation.root / "elsewhere").exists()
    again.send(signal.SIGTERM)
    assert again.wait() == 0
