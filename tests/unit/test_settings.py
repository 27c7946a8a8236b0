"""Settings from the environment, and what is said of those that are wrong."""

from pathlib import Path

import pytest

from ktrdr.errors import SettingsError
from ktrdr.settings import load_settings


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:8420", ("127.0.0.1", 8420)), ("[::1]:0", ("::1", 0)), ("box:65535", ("box", 65535))],
)
def test_where_it_listens_is_a_host_and_a_port(listen: str, address: tuple[str, int]) -> None:
    assert load_settings(listen=listen).listen_address == address


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:65536", "127.0.0.1:99999", ":8420", "box", "box:", "box:x", ""]
)
def test_what_is_no_address_to_listen_on_is_refused(listen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_LISTEN", listen)
    with pytest.raises(SettingsError, match=r"KTRDR_LISTEN: .* is not HOST:PORT") as raised:
        load_settings()
    assert raised.value.fix


def test_a_secret_whose_file_cannot_be_read_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRDR_TOKEN_FILE", str(tmp_path / "not-there"))
    with pytest.raises(SettingsError, match="not-there cannot be read") as raised:
        load_settings()
    assert "KTRDR_TOKEN_FILE" in str(raised.value.fix)
