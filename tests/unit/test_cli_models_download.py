"""`ktrdr models download`: a whole version that is what was persisted, or nothing."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ktrdr.backend.records import ModelRecord
from ktrdr.backend.states import State
from ktrdr.client.downloading import Take, download_model
from ktrdr.errors import ModelCorruptError, ModelError, StorageFullError
from ktrdr.events import FileDigest
from ktrdr.models.directory import ModelDirectory
from tests.unit.served_cases import ServedApi, ktrdr, served_in_thread


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with served_in_thread(tmp_path_factory.mktemp("served") / "there") as served:
        api = served.api

        async def live() -> None:
            completed = await api.submitted()
            await api.agent.finish(await api.agent.take())
            await api.until(completed, State.COMPLETED)

        served.do(live())
        yield served


@pytest.fixture
def model(served: ServedApi) -> ModelRecord:
    return served.api.store.models.find("momentum")


def content_of(served: ServedApi, model: ModelRecord, file: str, take: Take) -> None:
    path = served.api.settings.models_dir / model.name / file
    take(iter([path.read_bytes()]))


def anything_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()] if directory.exists() else []


def test_a_model_is_downloaded_here_and_from_a_server(
    served: ServedApi, model: ModelRecord, tmp_path: Path
) -> None:
    for variables in (served.variables(), served.variables(tmp_path / "elsewhere")):
        to = tmp_path / str(len(variables))
        said = ktrdr("models", "download", "momentum", "--to", str(to), "--json", variables=variables)
        assert (said.status, said.json["name"], said.json["path"]) == (0, model.name, str(to / model.name))
        assert ModelDirectory(to).verify(model.name, model.files) == []
        assert (to / model.name / "report.html").is_file() == ("report.html" in model.files)
        again = ktrdr("models", "download", "momentum", "--to", str(to), variables=variables)
        assert (again.status, "is there already" in again.stderr) == (1, True)
        assert "--to" in again.stderr


@pytest.mark.parametrize("content", [b"", b"other", b"x" * 1_000_000])
def test_what_is_not_what_was_persisted_leaves_nothing(
    model: ModelRecord, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(ModelCorruptError, match="is not what was persisted"):
        download_model(model, tmp_path / "to", lambda file, take: take(iter([content])))
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), StorageFullError),
        (PermissionError(errno.EACCES, "Permission denied"), ModelError),
    ],
)
def test_what_is_interrupted_leaves_nothing(
    served: ServedApi,
    model: ModelRecord,
    tmp_path: Path,
    failure: BaseException,
    told: type[BaseException],
) -> None:
    last = list(model.files)[-1]

    def read(file: str, take: Take) -> None:
        content_of(served, model, file, take)
        if file == last:
            raise failure

    with pytest.raises(told):
        download_model(model, tmp_path / "to", read)
    assert list((tmp_path / "to").iterdir()) == []


def test_a_file_that_is_begun_again_is_whole(served: ServedApi, model: ModelRecord, tmp_path: Path) -> None:
    def lost() -> Iterator[bytes]:
        yield b"begin"
        raise ConnectionResetError

    def read(file: str, take: Take) -> None:
        with pytest.raises(ConnectionResetError):
            take(lost())
        content_of(served, model, file, take)

    counts: list[int] = []
    download_model(model, tmp_path, read, counts.append)
    assert ModelDirectory(tmp_path).verify(model.name, model.files) == []
    assert counts[-1] == sum(digest.size for digest in model.files.values())


@pytest.mark.parametrize("name", ["../x", "a/../../b", "/etc/x", ".hidden/x", "one", "a/b/c"])
def test_a_model_whose_name_leads_elsewhere_is_refused(
    served: ServedApi, model: ModelRecord, tmp_path: Path, name: str
) -> None:
    hostile = replace(model, name=name)
    with pytest.raises(ModelError, match="is not the name of a model version"):
        download_model(hostile, tmp_path / "to", partial(content_of, served, model))
    assert anything_in(tmp_path) == []


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/b", ".bashrc", "SHA256SUMS", ""])
def test_a_file_whose_name_leads_elsewhere_is_refused(
    served: ServedApi, model: ModelRecord, tmp_path: Path, file: str
) -> None:
    hostile = replace(model, files={**model.files, file: FileDigest(sha256="0" * 64, size=1)})
    with pytest.raises(ModelError, match="cannot be a file of a model"):
        download_model(hostile, tmp_path / "to", partial(content_of, served, model))
    assert anything_in(tmp_path) == []
