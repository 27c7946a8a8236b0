"""`ktrdr tokens`, from making a token to its end."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ktrdr.app.deciding import default_mode
from ktrdr.backend.audit import audit_entries
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tokens import AccessTokens
from ktrdr.cli.main import app
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Mode
from tests.unit.api_cases import no_audit_entries


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
    with OperationStore.open(Settings(home=home)) as store:
        assert len(audit_entries(store, limit=10)) == len(noted)
    assert "revoked" in ktrdr("list").stdout


def test_a_token_that_others_have_seen_is_ended_by_itself_and_not_repeated(home: Path) -> None:
    secret = ktrdr("create", "leaked").stdout.strip()
    ended = ktrdr("revoke", secret)
    assert "'leaked'" in ended.output
    unknown = ktrdr("revoke", f"ktrdr_zzzzzzzz_{secret.rpartition('_')[2]}", status=1)
    assert "no token 'zzzzzzzz'" in unknown.output
    assert secret[-20:] not in ended.output + unknown.output


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


def test_what_cannot_be_written_into_the_audit_log_does_not_happen(home: Path) -> None:
    ktrdr("create", "grafana")
    with OperationStore.open(Settings(home=home)) as store:
        (before,) = AccessTokens(store).list()
        with no_audit_entries(store):
            ktrdr("create", "ci", status=1)
            ktrdr("revoke", "grafana", status=1)
            refused = CliRunner().invoke(app, ["config", "set", "default_mode", "auto"])
        assert refused.exit_code == 1
        assert AccessTokens(store).list() == [before]
        assert default_mode(Settings(home=home), store).mode is Mode.LOCAL
        assert len(audit_entries(store, limit=10)) == 1


def test_what_a_person_sets_at_this_machine_is_in_the_audit_log(home: Path) -> None:
    assert CliRunner().invoke(app, ["config", "set", "default_mode", "auto"]).exit_code == 0
    with OperationStore.open(Settings(home=home)) as store:
        (entry,) = audit_entries(store, limit=10)
    assert (entry.action, entry.subject, entry.status) == ("config set", "default_mode=auto", None)


def test_without_tokens_it_is_said_how_to_make_one() -> None:
    assert "ktrdr tokens create" in ktrdr("list").output
