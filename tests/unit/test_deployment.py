"""What is shipped to run ktrdr with: compose file, image, configuration of the broker."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from ktrdr.backend.api.health import health_router
from ktrdr.bus.definitions import definitions_json, users_of
from ktrdr.cli.main import app
from ktrdr.cli.passwords import variable_of
from ktrdr.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLE = re.compile(r"\$\{([A-Z_]+)(:\?[^}]*)?\}")


def variables_of(text: str) -> set[str]:
    return {name for name, _ in VARIABLE.findall(text)}


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    return {
        name: value for name, value in service.get("environment", {}).items() if name.startswith("KTRDR_")
    }


OURS = {name: service for name, service in SERVICES.items() if service["image"] == COMPOSE["name"]}


class TestTheComposeFile:
    @pytest.mark.parametrize("name", SERVICES)
    def test_names_images_that_are_built_here_or_have_a_version(self, name: str) -> None:
        image = SERVICES[name]["image"]
        assert image == "ktrdr" or re.fullmatch(r"[a-z]+:\d[\w.-]*", image)

    def test_builds_its_image_once(self) -> None:
        assert [name for name, service in OURS.items() if "build" in service] == ["definitions"]
        assert set(OURS) == {"definitions", "backend", "agent"}

    @pytest.mark.parametrize("name", OURS)
    def test_sets_settings_that_there_are_to_what_they_may_be(self, name: str) -> None:
        given = settings_of(SERVICES[name])
        for variable, value in given.items():
            field = variable.removeprefix("KTRDR_").lower()
            assert field in Settings.model_fields
            Settings(**{field: VARIABLE.sub("0123456789abcdef", value)})  # type: ignore[arg-type]  # as in the environment

    @pytest.mark.parametrize("name", OURS)
    def test_runs_commands_that_there_are(self, name: str) -> None:
        group = typer.main.get_command(app)
        words = list(SERVICES[name]["command"])
        while hasattr(group, "commands"):
            group = group.commands[words.pop(0)]
        known = {option for parameter in group.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known

    @pytest.mark.parametrize("name", SERVICES)
    def test_mounts_files_that_there_are_and_volumes_that_it_declares(self, name: str) -> None:
        for mount in SERVICES[name].get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), mount
                assert mount.endswith(":ro"), mount
            else:
                assert source in COMPOSE["volumes"], mount

    @pytest.mark.parametrize("name", SERVICES)
    def test_opens_ports_to_this_machine_only(self, name: str) -> None:
        assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))

    def test_has_no_default_for_a_secret(self) -> None:
        text = (ROOT / "docker-compose.yml").read_text()
        assert all(required for _, required in VARIABLE.findall(text))
        secrets = [
            (name, value)
            for service in SERVICES.values()
            for name, value in service.get("environment", {}).items()
            if name.endswith(("PASSWORD", "TOKEN")) or "URL" in name
        ]
        assert len(secrets) >= 8
        assert all(variables_of(value) for _, value in secrets)

    def test_needs_exactly_the_variables_of_the_example(self) -> None:
        example = re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
        assert {name for name, _ in example} == variables_of((ROOT / "docker-compose.yml").read_text())
        assert all(value == "" for _, value in example)

    def test_gives_the_definitions_a_password_of_each_user(self) -> None:
        needed = {variable_of(user) for user in users_of(administrator="admin")}
        assert set(SERVICES["definitions"]["environment"]) == needed

    @pytest.mark.parametrize("name", ["backend", "agent"])
    def test_connects_each_as_its_own_user(self, name: str) -> None:
        url = SERVICES[name]["environment"]["KTRDR_BROKER_URL"]
        assert url.startswith(f"amqp://{name}:${{{variable_of(name)}:?")

    @pytest.mark.parametrize("name", ["backend", "agent", "rabbitmq", "postgresql"])
    def test_waits_for_what_it_needs_and_comes_back(self, name: str) -> None:
        assert SERVICES[name]["restart"] == "unless-stopped"
        for needed, condition in SERVICES[name].get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed]
            else:
                assert SERVICES[needed]["restart"] == "no"

    def test_asks_the_backend_for_its_health_where_it_answers(self) -> None:
        asked = " ".join(SERVICES["backend"]["healthcheck"]["test"])
        path = re.search(r"http://127\.0\.0\.1:8420(/[a-z/]+)", asked)
        assert path is not None
        assert path[1] in {getattr(route, "path", "") for route in health_router(None).routes}

    def test_keeps_operations_in_the_database_that_it_starts(self) -> None:
        backend = SERVICES["backend"]
        url = urlsplit(VARIABLE.sub(r"\1", backend["environment"]["KTRDR_DATABASE_URL"]))
        server = SERVICES[url.hostname or ""]
        assert backend["depends_on"][url.hostname] == {"condition": "service_healthy"}
        assert (url.username, url.path) == (
            server["environment"]["POSTGRES_USER"],
            f"/{server['environment']['POSTGRES_DB']}",
        )
        assert variables_of(server["environment"]["POSTGRES_PASSWORD"]) == {url.password}
        # While it sets up its first database, it answers at its socket.
        assert "--host" in server["healthcheck"]["test"]
        assert re.search(r"^RUN pip install .*\[postgres\]", DOCKERFILE, re.MULTILINE)

    def test_starts_everything_that_it_has(self) -> None:
        assert [name for name, service in SERVICES.items() if "profiles" in service] == []

    def test_lets_an_agent_drain_before_it_is_killed(self) -> None:
        agent = SERVICES["agent"]
        assert int(agent["stop_grace_period"].removesuffix("s")) > float(
            agent["environment"]["KTRDR_DRAIN_S"]
        )

    def test_keeps_what_must_outlive_a_container_on_volumes(self) -> None:
        places = dict(re.findall(r"(KTRDR_(?:HOME|MODELS_DIR))=(\S+)", DOCKERFILE))
        assert len(places) == 2
        for name in ("backend", "agent"):
            mounted = [mount.split(":")[1] for mount in SERVICES[name]["volumes"]]
            assert all(any(place.startswith(f"{mount}/") for mount in mounted) for place in places.values())


class TestTheComposeFileForTls:
    TEXT = (ROOT / "deploy/compose-tls.yml").read_text()
    CHANGED: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]

    def test_changes_services_that_there_are(self) -> None:
        assert set(self.CHANGED) == {"rabbitmq", "backend", "agent"} < set(SERVICES)
        assert variables_of(self.TEXT) <= variables_of((ROOT / "docker-compose.yml").read_text())

    @pytest.mark.parametrize("name", ["backend", "agent"])
    def test_connects_each_over_tls_with_an_authority_that_it_mounts(self, name: str) -> None:
        url = self.CHANGED[name]["environment"]["KTRDR_BROKER_URL"]
        assert url.startswith(f"amqps://{name}:${{{variable_of(name)}:?")
        place = url.partition("?cafile=")[2]
        assert any(mount.split(":")[1] == place for mount in self.CHANGED[name]["volumes"])

    def test_mounts_configuration_that_names_what_it_mounts(self) -> None:
        mounts = dict(mount.split(":")[:2] for mount in self.CHANGED["rabbitmq"]["volumes"])
        (file,) = [source for source in mounts if source.endswith(".conf")]
        assert (ROOT / file).is_file()
        for path in re.findall(r"file = (\S+)$", (ROOT / file).read_text(), re.MULTILINE):
            assert Path(path).parent.as_posix() in mounts.values()

    def test_explains_in_the_page_what_it_needs(self) -> None:
        page = (ROOT / "docs/tls.md").read_text()
        assert "-f docker-compose.yml -f deploy/compose-tls.yml" in page
        assert "deploy/make-certificates certificates rabbitmq " in page


class TestTheImage:
    def test_runs_as_nobody_special(self) -> None:
        last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
        assert re.search(r"^USER (?!root|0)\w+$", last_stage, re.MULTILINE)

    def test_copies_what_there_is_and_docker_sees(self) -> None:
        seen = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in seen

    def test_sets_settings_that_there_are(self) -> None:
        for name in re.findall(r"\bKTRDR_([A-Z_]+)=", DOCKERFILE):
            assert name.lower() in Settings.model_fields


class TestTheDefinitions:
    def test_in_the_repository_are_those_of_the_code(self) -> None:
        assert (ROOT / "deploy/rabbitmq/definitions.json").read_text() == definitions_json()

    def test_in_the_repository_let_nobody_in(self) -> None:
        document = json.loads((ROOT / "deploy/rabbitmq/definitions.json").read_text())
        assert [user["name"] for user in document["users"]] == ["backend", "agent", "observer"]
        assert all(user["password_hash"] == "" and user["tags"] == "" for user in document["users"])

    def test_are_loaded_from_where_compose_has_them(self) -> None:
        (place,) = re.findall(
            r"^load_definitions = (.+)$", (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text(), re.MULTILINE
        )
        assert place in SERVICES["definitions"]["command"]
        assert any(place.startswith(mount.split(":")[1] + "/") for mount in SERVICES["rabbitmq"]["volumes"])


class TestPasswords:
    def test_are_made_for_those_who_have_none_and_kept(self, tmp_path: Path) -> None:
        file = tmp_path / "passwords"
        file.write_text("AGENT_PASSWORD=given\n# a comment\nOTHER=x")
        arguments = ["broker", "definitions", "--passwords", str(file), "--output", str(tmp_path / "d.json")]
        first = CliRunner().invoke(app, arguments)
        written = file.read_text()
        assert "AGENT_PASSWORD=given\n" in written
        assert re.search(r"^BACKEND_PASSWORD=\w{48}$", written, re.MULTILINE)
        assert "Made a password for backend: BACKEND_PASSWORD in" in first.stderr
        assert "given" not in (tmp_path / "d.json").read_text() + first.output
        again = CliRunner().invoke(app, arguments)
        assert file.read_text() == written
        assert "Made" not in again.stderr

    def test_in_a_new_file_are_for_its_owner_only(self, tmp_path: Path) -> None:
        file = tmp_path / "passwords"
        CliRunner().invoke(app, ["broker", "definitions", "--passwords", str(file)])
        assert file.stat().st_mode & 0o777 == 0o600

    def test_are_salted_afresh_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENT_PASSWORD", "the same")
        hashes = set()
        for _ in range(2):
            users = json.loads(CliRunner().invoke(app, ["broker", "definitions"]).stdout)["users"]
            hashes.add(next(user["password_hash"] for user in users if user["name"] == "agent"))
        assert len(hashes) == 2
        assert "" not in hashes

    def test_that_are_missing_are_pointed_out(self) -> None:
        ran = CliRunner().invoke(app, ["broker", "definitions", "--agent", "gpu-box.1"])
        assert "unable to log in: backend, gpu-box.1, observer" in ran.stderr
        assert "GPU_BOX_1_PASSWORD" in ran.stderr

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--agent", "backend"], "'backend' is a user already"),
            (["--admin", "observer"], "'observer' is a user already"),
            (["--agent", "a.b", "--agent", "a-b"], "Two of the users have the same variable"),
            (["--passwords", "/"], "/ cannot be read"),
            (["--output", "/nowhere/file"], "/nowhere/file cannot be written"),
        ],
    )
    def test_and_names_that_cannot_be_are_refused(self, options: list[str], said: str) -> None:
        ran = CliRunner().invoke(app, ["broker", "definitions", *options])
        assert ran.exit_code == 1
        assert said in ran.stderr


class TestMakeEnv:
    def run(self, directory: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([directory / "deploy/make-env"], capture_output=True, text=True, check=False)

    def test_writes_a_random_value_for_each_variable_once(self, tmp_path: Path) -> None:
        shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
        shutil.copy(ROOT / ".env.example", tmp_path)
        assert self.run(tmp_path).returncode == 0
        written = (tmp_path / ".env").read_text()
        values = dict(re.findall(r"^([A-Z_]+)=(\w{48})$", written, re.MULTILINE))
        assert set(values) == variables_of((ROOT / "docker-compose.yml").read_text())
        assert len(set(values.values())) == len(values)
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
        again = self.run(tmp_path)
        assert again.returncode == 1
        assert "is there already" in again.stderr
        assert (tmp_path / ".env").read_text() == written

    def test_writes_what_git_and_docker_do_not_see(self) -> None:
        assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
        assert "!.env" not in (ROOT / ".dockerignore").read_text()
