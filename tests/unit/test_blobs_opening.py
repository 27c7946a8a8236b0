"""Which store the settings name."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.http import HttpBlobStore
from ktrdr.blobs.object_store import ObjectBlobStore
from ktrdr.blobs.opening import open_blob_inventory, open_blob_store
from ktrdr.blobs.store import BlobStore
from ktrdr.errors import SettingsError
from ktrdr.settings import Settings

TOKEN = SecretStr("token-of-the-tests-0123456789")
CONTENT = b"content"


@pytest.fixture(autouse=True)
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)


def opened(blob_store: str | None, tmp_path: Path, token: SecretStr | None = TOKEN) -> BlobStore:
    return open_blob_store(Settings(home=tmp_path / "home", blob_store=blob_store, blob_token=token))


def test_without_a_setting_it_is_in_the_home_directory(tmp_path: Path) -> None:
    store = opened(None, tmp_path)
    assert isinstance(store, DirectoryBlobStore)
    assert store.root == tmp_path / "home" / "blobs"


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file://localhost{path}", "FILE://{path}"])
def test_it_is_a_directory(tmp_path: Path, form: str) -> None:
    store = opened(form.format(path=tmp_path / "shared"), tmp_path)
    assert isinstance(store, DirectoryBlobStore)
    assert store.root == tmp_path / "shared"


def test_a_directory_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    roots = {"~/blobs": "blobs", "relative": "relative", "a b:c": "a b:c", f"file://{tmp_path}/a%20b": "a b"}
    for given, expected in roots.items():
        store = opened(given, tmp_path)
        assert isinstance(store, DirectoryBlobStore)
        assert store.root == tmp_path / expected


@pytest.mark.parametrize("given", ["s3://bucket/some/prefix", "gs://bucket/prefix", "az://account/container"])
def test_it_is_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    store = opened(given, tmp_path)
    assert isinstance(store, ObjectBlobStore)
    assert store.name == given


@pytest.mark.parametrize("given", ["https://backend:8420", "https://backend/", "http://127.0.0.1:8420"])
def test_it_is_a_backend(tmp_path: Path, given: str) -> None:
    store = opened(given, tmp_path)
    assert isinstance(store, HttpBlobStore)
    assert store.url == given.rstrip("/")


def test_a_backend_does_not_take_itself_for_its_store(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, blob_store="https://backend:8420", blob_token=TOKEN)
    with pytest.raises(SettingsError, match="this is the backend itself") as refused:
        open_blob_inventory(settings)
    assert "the address is for agents" in str(refused.value.fix)
    kept = open_blob_inventory(Settings(home=tmp_path, blob_store=str(tmp_path / "shared")))
    assert isinstance(kept, DirectoryBlobStore)


def test_on_this_machine_a_backend_may_ask_for_no_token(tmp_path: Path) -> None:
    assert isinstance(opened("http://[::1]:8420", tmp_path, token=None), HttpBlobStore)
    with pytest.raises(SettingsError, match="asks for a token") as refused:
        opened("https://backend:8420", tmp_path, token=None)
    assert "KTRDR_BLOB_TOKEN" in str(refused.value.fix)


def test_a_backend_elsewhere_without_tls_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened("http://backend:8420", tmp_path)
    assert "travel unprotected" in capsys.readouterr().out
    opened("http://localhost:8420", tmp_path)
    opened("https://backend:8420", tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "given",
    [
        "ftp://host/path",
        "s3://",
        "s3:///prefix",
        "file://host/path",
        "file://",
        "http://",
        "https://:8420",
        "https://host:port",
        "https://host:99999",
        "https://host/?query",
        "https://host/#fragment",
        "http://[::1",
    ],
)
def test_what_names_no_store_is_an_error_that_says_what_may_be(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingsError, match="KTRDR_BLOB_STORE cannot be") as refused:
        opened(given, tmp_path)
    assert "s3://bucket/prefix" in str(refused.value.fix)


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        opened("https://user:password@host:8420", tmp_path)
    assert "password" not in str(refused.value)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_a_bucket_elsewhere_without_tls_must_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://minio:9000")
    with pytest.raises(SettingsError, match=f"{variable} is http://minio:9000") as refused:
        opened("s3://bucket", tmp_path)
    assert "AWS_ALLOW_HTTP=true" in str(refused.value.fix)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert isinstance(opened("s3://bucket", tmp_path), ObjectBlobStore)
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    monkeypatch.setenv(variable, "http://localhost:9000")
    assert isinstance(opened("s3://bucket", tmp_path), ObjectBlobStore)


def test_a_directory_is_opened_without_loading_the_other_stores(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from ktrdr.blobs.opening import open_blob_inventory, open_blob_store\n"
        "from ktrdr.settings import Settings\n"
        "open_blob_store(Settings(home='.'))\n"
        "print({'httpx', 'fastapi', 'uvicorn', 'ktrdr.blobs.object_store', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "set()\n"
