"""URLs of brokers."""

from pathlib import Path

import pytest

from ktrdr.bus.rabbitmq_address import parse_addresses
from ktrdr.errors import SettingsError
from tests.broker.certificates import Certificates


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "vhost"),
    [
        ("amqp://localhost", "localhost", 5672, "guest", "/"),
        ("amqp://agent:secret@broker.example:1234/", "broker.example", 1234, "agent", "/"),
        ("amqp://a%40b:p%2Fq@[::1]/%2F", "::1", 5672, "a@b", "/"),
        ("amqp://u:p@h/a%2Fb", "h", 5672, "u", "a/b"),
        ("amqps://u:p@h/v", "h", 5671, "u", "v"),
    ],
)
def test_an_address_is_read_from_a_url(url: str, host: str, port: int, user: str, vhost: str) -> None:
    (address,) = parse_addresses(url)
    assert (address.host, address.port, address.user, address.vhost) == (host, port, user, vhost)
    assert (address.tls is not None) is url.startswith("amqps")


def test_a_password_is_never_shown() -> None:
    (address,) = parse_addresses("amqp://agent:secret@h/v")
    assert "secret" not in f"{address} {address!r}"


def test_several_urls_are_the_nodes_of_one_cluster() -> None:
    assert [each.host for each in parse_addresses("amqp://u:p@a/v  amqp://u:p@b/v\n")] == ["a", "b"]


def test_certificates_are_read_at_once(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path)
    query = f"cafile={made.authority}&certfile={made.certificate}&keyfile={made.key}"
    (address,) = parse_addresses(f"amqps://u:p@h/v?{query}")
    assert address.tls is not None
    assert len(address.tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is empty"),
        ("localhost", "does not begin with amqp://"),
        ("http://h", "does not begin with amqp://"),
        ("amqp://", "names no host"),
        ("amqp://h:port", "Port could not be cast"),
        ("amqp://h?cafile=x", "'cafile' is for amqps://"),
        ("amqps://h?ca_certs=x", "the parameter 'ca_certs', which is none of cafile, certfile, keyfile"),
        ("amqps://h?cafile=/nowhere.pem", "no file '/nowhere.pem'"),
        (f"amqps://h?keyfile={__file__}", "a keyfile without a certfile"),
        (f"amqps://h?cafile={__file__}", "a certificate or key in it cannot be used"),
        ("amqp://a:x@h amqp://b:x@h", "several users"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_form_that_can(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        parse_addresses(url)
    assert raised.value.fix
