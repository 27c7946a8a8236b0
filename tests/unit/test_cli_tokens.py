"""`ktrdr tokens`, from making a token to its end."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ktrdr.backend.audit import audit_entries
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tokens import AccessTokens
from ktrdr.cli.main import app
from ktrdr.settings import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path))
    return tmp_path


def ktrdr(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["tokens", *arguments])
    assert result.exit_code == status, result.output
    return result


def test_a_token_is_shown_once_listed_without_it_and_revoked(home: Path) -> None:
    secret = ktrdr("create", "grafana", "--role", "viewer").stdout.strip()
    (listed,) = json.loads(ktrdr("list", "--json").stdout)
    assert (listed["name"], listed["role"], listed["revoked_at"]) == ("grafana", "viewer", None)
    assert secret.startswith(f"ktrdr_{listed['id']}_")
    assert secret not in ktrdr("list").output
    with OperationStore.open(Settings(home=home)) as store:
        assert AccessTokens(store).recognise(secret) is not None
        ktrdr("revoke", "grafana")
        assert AccessTokens(store).recognise(secret) is None
        noted = [(entry.action, entry.subject) for entry in audit_entries(store, limit=10)]
    assert noted[0] == ("tokens revoke", f"grafana ({listed['id']})")
    assert noted[1] == ("tokens create", f"grafana ({listed['id']}), viewer")
    assert "revoked already" in ktrdr("revoke", listed["id"]).output
    assert "revoked" in ktrdr("list").stdout


def test_scripts_get_json(home: Path) -> None:
    made = json.loads(ktrdr("create", "ci", "--role", "operator", "--days", "30", "--json").stdout)
    assert made["token"].startswith("ktrdr_")
    assert made["expires_at"] is not None
    assert json.loads(ktrdr("revoke", made["id"], "--json").stdout)["revoked"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--role", "root"), "not a role"),
        (("create", " "), "needs a name"),
        (("create", "a\nb"), "needs a name"),
        (("revoke", "nobody"), "no token"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], said: str) -> None:
    ktrdr("create", "somebody")
    assert said in ktrdr(*arguments, status=1).output


def test_without_tokens_it_is_said_how_to_make_one() -> None:
    assert "ktrdr tokens create" in ktrdr("list").output
