"""TLS as `docs/tls.md` has it: the shipped script and configuration, a real broker, and the commands."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ktrdr.cli.main import app
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
from tests.broker.ports import free_ports

# All in one worker, so that the node of this module is started once.
pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("tls")]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "make-certificates"


def make(directory: Path, *names: str, status: int = 0) -> str:
    ran = subprocess.run([SCRIPT, directory, *names], capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    make(directory, "localhost", "127.0.0.1")
    make(directory, "--client", "gpu-box")
    return directory


@dataclass(frozen=True)
class Encrypted:
    """A broker with the shipped configuration, and where it is."""

    node: PrivateNode
    amqps_port: int
    management_port: int

    def url(self, host: str = "localhost", port: int | None = None, **parameters: Path) -> str:
        query = "&".join(f"{name}={path}" for name, path in parameters.items())
        return f"amqps://guest:guest@{host}:{port or self.amqps_port}/?{query}"


def start(certificates: Path, **changes: str) -> Encrypted:
    """Start a broker with the shipped configuration, but for paths, ports and what is given."""
    amqps_port, management_port = free_ports(2)
    text = (ROOT / "deploy/rabbitmq/tls.conf").read_text()
    for shipped, here in {
        "listeners.tcp = none\n": "",
        "listeners.ssl.default = 5671": f"listeners.ssl.1 = 127.0.0.1:{amqps_port}",
        "management.ssl.port = 15671": f"management.ssl.port = {management_port}",
        "= /certificates": f"= {certificates}",
        **changes,
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    node = PrivateNode(NodeConfig(plugins=("rabbitmq_management",), lines=tuple(text.splitlines())))
    return Encrypted(node, amqps_port, management_port)


@pytest.fixture(scope="module")
def broker(certificates: Path) -> Iterator[Encrypted]:
    found = start(certificates)
    with found.node:
        yield found


def check(url: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["broker", "check", "--broker", url, *options])


def test_with_the_authority_everything_is_encrypted(broker: Encrypted, certificates: Path) -> None:
    url = broker.url(cafile=certificates / "ca.pem")
    assert CliRunner().invoke(app, ["broker", "setup", "--broker", url]).exit_code == 0
    management = f"https://guest:guest@localhost:{broker.management_port}"
    checked = check(url, "--management", management, "--json")
    assert checked.exit_code == 0, checked.output
    findings = json.loads(checked.stdout)
    assert ("TLS", "ok") in [(finding["name"], finding["mark"]) for finding in findings]
    assert {finding["part"] for finding in findings} >= {"binding", "queue", "exchange", "user"}


def test_every_name_that_the_certificate_has_will_do(broker: Encrypted, certificates: Path) -> None:
    for host in ("localhost", "127.0.0.1"):
        said = check(broker.url(host, cafile=certificates / "ca.pem")).stdout
        (about_tls,) = [line for line in said.splitlines() if "TLS" in line]
        assert about_tls in (ROOT / "docs/tls.md").read_text()


def fails(ran: Result, *words: str) -> None:
    assert ran.exit_code == 1
    assert "Traceback" not in ran.output
    for each in words:
        assert each in ran.stderr


def test_without_the_authority_the_error_says_what_to_do(broker: Encrypted) -> None:
    fails(check(broker.url()), "certificate", "?cafile=")


def test_another_authority_is_no_help(broker: Encrypted, tmp_path: Path) -> None:
    make(tmp_path, "localhost")
    fails(check(broker.url(cafile=tmp_path / "ca.pem")), "certificate", "?cafile=")


def test_a_name_that_the_certificate_does_not_have_is_not_trusted(tmp_path: Path) -> None:
    make(tmp_path, "broker.example.org")
    other = start(tmp_path)
    with other.node:
        fails(check(other.url(cafile=tmp_path / "ca.pem")), "Hostname mismatch", "localhost")


def test_a_port_without_tls_is_told_from_one_with(broker: Encrypted, certificates: Path) -> None:
    fails(
        check(broker.url(port=broker.node.amqp_port, cafile=certificates / "ca.pem")), "wrong version number"
    )


def test_a_file_that_is_not_there_is_named(broker: Encrypted, tmp_path: Path) -> None:
    fails(check(broker.url(cafile=tmp_path / "nothing.pem")), "there is no file", "nothing.pem")


def test_a_broker_that_asks_for_certificates_lets_in_who_has_one(certificates: Path) -> None:
    asking = start(
        certificates,
        **{"verify = verify_none": "verify = verify_peer", "no_peer_cert = false": "no_peer_cert = true"},
    )
    ca, client = certificates / "ca.pem", certificates / "gpu-box"
    with asking.node:
        with_one = asking.url(
            cafile=ca, certfile=client.with_suffix(".pem"), keyfile=client.with_suffix(".key")
        )
        assert "TLS" in check(with_one).stdout
        fails(check(asking.url(cafile=ca)))


def test_the_script_keeps_the_authority_and_renews_the_rest(tmp_path: Path) -> None:
    said = make(tmp_path, "localhost")
    assert "made the authority" in said
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"ca.key", "ca.pem", "server.key", "server.pem"}
    assert "made the authority" not in make(tmp_path, "localhost", "10.0.0.5")
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {name for name, content in after.items() if before[name] != content} == {
        "server.key",
        "server.pem",
    }


def test_keys_are_for_their_owner_only(certificates: Path) -> None:
    modes = {file.name: file.stat().st_mode & 0o777 for file in certificates.iterdir()}
    assert {name: mode for name, mode in modes.items() if name.endswith(".key")} == {
        "ca.key": 0o600,
        "server.key": 0o600,
        "gpu-box.key": 0o600,
    }
    assert modes["ca.pem"] == 0o644


@pytest.mark.parametrize("names", [[], ["two words"], ["a,DNS:b"], ["--client"], ["--help"], [""]])
def test_the_script_makes_nothing_of_names_that_are_none(tmp_path: Path, names: list[str]) -> None:
    make(tmp_path / "new", *names, status=2)
    assert not list(tmp_path.glob("new/*"))
