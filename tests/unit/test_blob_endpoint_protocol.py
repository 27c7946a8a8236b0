"""The blob endpoint as it is spoken to: by whom, how, and what it answers."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ktrdr.blobs.directory import DirectoryBlobStore
from tests.blob_server import MIB, TOKEN, Served, blob_server
from tests.small_disk import fill

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
AUTHORIZED = {"Authorization": f"Bearer {TOKEN.get_secret_value()}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with blob_server(tmp_path_factory.mktemp("server") / "blobs", max_blob_bytes=96 * MIB) as served:
        yield served


@pytest.fixture
def store(server: Served) -> DirectoryBlobStore:
    for entry in server.store.entries():
        server.store.delete(entry.sha256)
    for path in server.store.root.glob("uploads/*"):
        path.unlink()
    return server.store


@pytest.fixture
def client(server: Served, store: DirectoryBlobStore) -> Iterator[httpx.Client]:
    base = f"{server.url}/api/v1/blobs"
    with httpx.Client(base_url=base, headers=AUTHORIZED, timeout=60) as client:
        yield client


def begin(client: httpx.Client, size: int, sha256: str = SHA256) -> httpx.Response:
    return client.post(f"/{sha256}/upload", headers={"Upload-Length": str(size)})


def append(
    client: httpx.Client, body: bytes | Iterator[bytes], offset: int, size: int, sha256: str = SHA256
) -> httpx.Response:
    headers = {"Upload-Length": str(size), "Upload-Offset": str(offset)}
    return client.patch(f"/{sha256}/upload", headers=headers, content=body)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:ktrdr:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body


# --- who ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PATCH"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong-token-0123456789",
        f"Basic {TOKEN.get_secret_value()}",
        TOKEN.get_secret_value(),
        f"Bearer {TOKEN.get_secret_value()}x",
        f"Bearer {TOKEN.get_secret_value()[:-1]}",
    ],
)
def test_nothing_is_answered_without_the_token(server: Served, method: str, header: str | None) -> None:
    path = f"/api/v1/blobs/{SHA256}" + ("/upload" if method in ("POST", "PATCH") else "")
    headers = {"Upload-Length": "1", "Upload-Offset": "0"}
    if header is not None:
        headers["Authorization"] = header
    response = httpx.request(method, server.url + path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        assert "KTRDR_BLOB_TOKEN" in str(response.json()["fix"])


def test_whether_it_lives_is_told_to_everyone(server: Served) -> None:
    response = httpx.get(f"{server.url}/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_what_is_not_there_is_a_problem_too(server: Served) -> None:
    assert_problem(httpx.get(f"{server.url}/nothing"), 404, "not-found")
    assert_problem(httpx.post(f"{server.url}/health/live"), 405, "method-not-allowed")


def test_the_application_describes_itself(server: Served) -> None:
    described = httpx.get(f"{server.url}/api/v1/openapi.json").json()
    blob, upload = (
        described["paths"]["/api/v1/blobs/{sha256}"],
        described["paths"]["/api/v1/blobs/{sha256}/upload"],
    )
    assert (set(blob), set(upload)) == ({"get", "head"}, {"post", "patch"})


# --- reading --------------------------------------------------------------------------------------


def test_a_blob_is_read_whole(client: httpx.Client, store: DirectoryBlobStore) -> None:
    store.put(CONTENT)
    response = client.get(f"/{SHA256}")
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["etag"] == f'"{SHA256}"'
    assert response.headers["accept-ranges"] == "bytes"


def test_the_head_of_a_blob_tells_its_size(client: httpx.Client, store: DirectoryBlobStore) -> None:
    store.put(CONTENT)
    response = client.head(f"/{SHA256}")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(CONTENT))


def test_an_empty_blob_is_read(client: httpx.Client, store: DirectoryBlobStore) -> None:
    ref = store.put(b"")
    response = client.get(f"/{ref.sha256}")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "part", "place"),
    [
        ("bytes=0-", CONTENT, "bytes 0-10239/10240"),
        ("bytes=100-", CONTENT[100:], "bytes 100-10239/10240"),
        ("bytes=100-199", CONTENT[100:200], "bytes 100-199/10240"),
        ("bytes=10239-", CONTENT[-1:], "bytes 10239-10239/10240"),
        ("bytes=10000-99999", CONTENT[10000:], "bytes 10000-10239/10240"),
        ("bytes=-100", CONTENT[-100:], "bytes 10140-10239/10240"),
        ("bytes=-99999", CONTENT, "bytes 0-10239/10240"),
    ],
)
def test_a_part_of_a_blob_is_read(
    client: httpx.Client, store: DirectoryBlobStore, asked: str, part: bytes, place: str
) -> None:
    store.put(CONTENT)
    response = client.get(f"/{SHA256}", headers={"Range": asked})
    assert (response.status_code, response.content) == (206, part)
    assert response.headers["content-range"] == place


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-", "bytes=5-4", "bytes=-0"])
def test_a_part_that_there_is_not_is_refused(
    client: httpx.Client, store: DirectoryBlobStore, asked: str
) -> None:
    store.put(CONTENT)
    response = client.get(f"/{SHA256}", headers={"Range": asked})
    assert_problem(response, 416, "no-such-range")
    assert response.headers["content-range"] == "bytes */10240"


@pytest.mark.parametrize(
    "asked", ["", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", f"bytes={'9' * 40}-"]
)
def test_a_range_that_is_not_understood_is_as_none(
    client: httpx.Client, store: DirectoryBlobStore, asked: str
) -> None:
    store.put(CONTENT)
    response = client.get(f"/{SHA256}", headers={"Range": asked})
    assert (response.status_code, response.content) == (200, CONTENT)


def test_a_blob_that_is_missing_is_said_to_be(client: httpx.Client) -> None:
    assert SHA256 in str(assert_problem(client.get(f"/{SHA256}"), 404, "no-such-blob")["detail"])
    assert client.head(f"/{SHA256}").status_code == 404


@pytest.mark.parametrize(
    "name", ["0" * 63, "0" * 65, SHA256.upper(), "..", "%2e%2e", "passwd", "0" * 63 + "%0a"]
)
def test_what_is_no_hash_is_refused(client: httpx.Client, store: DirectoryBlobStore, name: str) -> None:
    url = httpx.URL(f"{client.base_url}{name}")
    headers = {"Upload-Length": "1", "Upload-Offset": "0"}
    assert client.get(url).status_code in (400, 404)
    assert client.post(f"{url}/upload", headers=headers).status_code in (400, 404, 405)
    assert client.patch(f"{url}/upload", headers=headers, content=b"x").status_code in (400, 404, 405)
    assert not list(store.root.glob("uploads/*"))


def test_a_path_does_not_lead_out_of_the_store(client: httpx.Client, store: DirectoryBlobStore) -> None:
    (store.root.parent / "secret").write_bytes(b"secret")
    for path in (
        "..%2fsecret",
        "%2e%2e/secret",
        "..%2f..%2f..%2fetc%2fpasswd",
        f"{SHA256}%2f..%2f..%2fsecret",
    ):
        response = client.get(httpx.URL(f"{client.base_url}{path}"))
        assert response.status_code in (400, 404)
        assert b"secret" not in response.content


# --- sending --------------------------------------------------------------------------------------


def test_a_blob_is_sent_in_one_request(client: httpx.Client, store: DirectoryBlobStore) -> None:
    assert begin(client, len(CONTENT)).json() == {"offset": 0, "complete": False}
    response = append(client, CONTENT, 0, len(CONTENT))
    assert (response.status_code, response.json()) == (201, {"offset": len(CONTENT), "complete": True})
    assert client.get(f"/{SHA256}").content == CONTENT
    assert not list(store.root.glob("uploads/*"))


def test_a_blob_is_sent_in_pieces(client: httpx.Client, store: DirectoryBlobStore) -> None:
    for offset in range(0, 10_000, 1000):
        response = append(client, CONTENT[offset : offset + 1000], offset, len(CONTENT))
        assert (response.status_code, response.headers["upload-offset"]) == (200, str(offset + 1000))
        assert not store.exists(SHA256)
        assert begin(client, len(CONTENT)).json() == {"offset": offset + 1000, "complete": False}
    assert append(client, CONTENT[10_000:], 10_000, len(CONTENT)).status_code == 201
    assert begin(client, len(CONTENT)).json() == {"offset": len(CONTENT), "complete": True}


def test_an_empty_blob_is_there_as_soon_as_it_is_begun(
    client: httpx.Client, store: DirectoryBlobStore
) -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    assert begin(client, 0, sha256).json() == {"offset": 0, "complete": True}
    assert store.exists(sha256)


@pytest.mark.parametrize("offset", [0, 999, 1001, 10_240, 2**62])
def test_what_does_not_continue_is_told_where_to_go_on(client: httpx.Client, offset: int) -> None:
    append(client, CONTENT[:1000], 0, len(CONTENT))
    problem = assert_problem(append(client, b"", offset, len(CONTENT)), 409, "wrong-offset")
    assert problem["offset"] == 1000
    assert begin(client, len(CONTENT)).json()["offset"] == 1000


def test_wrong_content_is_refused_and_discarded(client: httpx.Client, store: DirectoryBlobStore) -> None:
    wrong = CONTENT[:-1] + b"?"
    problem = assert_problem(append(client, wrong, 0, len(wrong)), 422, "wrong-content")
    assert SHA256 in str(problem["detail"])
    assert not store.exists(SHA256)
    assert begin(client, len(CONTENT)).json() == {"offset": 0, "complete": False}
    assert append(client, CONTENT, 0, len(CONTENT)).status_code == 201


def test_a_length_that_is_too_short_for_the_blob_makes_it_wrong_content(client: httpx.Client) -> None:
    assert_problem(append(client, CONTENT[:100], 0, 100), 422, "wrong-content")
    assert begin(client, len(CONTENT)).json()["offset"] == 0


def test_a_length_that_is_too_long_leaves_it_unfinished_until_it_is_right(client: httpx.Client) -> None:
    response = append(client, CONTENT, 0, len(CONTENT) + 1)
    assert response.json() == {"offset": len(CONTENT), "complete": False}
    assert begin(client, len(CONTENT)).json() == {"offset": len(CONTENT), "complete": True}


def test_what_came_under_too_long_a_length_and_is_wrong_is_discarded(client: httpx.Client) -> None:
    append(client, b"?" * 20_000, 0, 30_000)
    assert begin(client, len(CONTENT)).json() == {"offset": 0, "complete": False}


def test_a_body_that_is_longer_than_what_is_missing_is_refused(client: httpx.Client) -> None:
    assert_problem(append(client, CONTENT, 0, 100), 400, "longer-than-announced")
    assert begin(client, len(CONTENT)).json()["offset"] == 0


def test_a_body_of_unknown_length_is_refused_where_it_becomes_too_long(client: httpx.Client) -> None:
    response = append(client, iter([CONTENT, b"more"]), 0, len(CONTENT))
    assert_problem(response, 400, "refused")
    assert begin(client, len(CONTENT)).json()["offset"] in (0, len(CONTENT))


def test_a_body_of_unknown_length_is_taken(client: httpx.Client) -> None:
    assert append(client, iter([CONTENT[:7], CONTENT[7:]]), 0, len(CONTENT)).status_code == 201


def test_a_blob_over_the_limit_is_refused(client: httpx.Client) -> None:
    problem = assert_problem(begin(client, 96 * MIB + 1), 413, "blob-too-large")
    assert "the limit is 100,663,296" in str(problem["detail"])
    assert_problem(append(client, b"x", 0, 96 * MIB + 1), 413, "blob-too-large")


def test_a_request_over_the_limit_is_refused(client: httpx.Client) -> None:
    assert_problem(append(client, b"x" * (64 * MIB + 1), 0, 96 * MIB), 413, "body-too-large")
    assert begin(client, 96 * MIB).json()["offset"] == 0


def test_a_request_of_unknown_length_is_refused_where_it_is_over_the_limit(client: httpx.Client) -> None:
    response = append(client, iter([b"x" * MIB] * 65), 0, 96 * MIB)
    assert_problem(response, 413, "body-too-large")
    assert begin(client, 96 * MIB).json()["offset"] <= 64 * MIB


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Length": "10"},
        {"Upload-Offset": "0"},
        {"Upload-Length": "-1", "Upload-Offset": "0"},
        {"Upload-Length": "10", "Upload-Offset": "-1"},
        {"Upload-Length": "ten", "Upload-Offset": "0"},
        {"Upload-Length": "1e3", "Upload-Offset": "0"},
        {"Upload-Length": "9" * 30, "Upload-Offset": "0"},
    ],
)
def test_a_request_without_proper_headers_is_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.patch(f"/{SHA256}/upload", headers=headers, content=b"x")
    assert "upload-" in str(assert_problem(response, 400, "invalid-request")["detail"]).lower()


def test_a_blob_that_is_there_is_not_sent_again_and_becomes_young(
    client: httpx.Client, store: DirectoryBlobStore
) -> None:
    store.put(CONTENT)
    (before,) = store.entries()
    assert begin(client, len(CONTENT)).json() == {"offset": len(CONTENT), "complete": True}
    (after,) = store.entries()
    assert after.modified > before.modified


def test_a_blob_that_is_damaged_is_sent_again(client: httpx.Client, store: DirectoryBlobStore) -> None:
    store.put(CONTENT)
    (store.root / SHA256[:2] / SHA256[2:]).write_bytes(CONTENT[:-1])
    assert begin(client, len(CONTENT)).json() == {"offset": 0, "complete": False}
    assert append(client, CONTENT, 0, len(CONTENT)).status_code == 201
    assert client.get(f"/{SHA256}").content == CONTENT


def test_a_partial_blob_is_not_received_through_a_link(
    client: httpx.Client, store: DirectoryBlobStore
) -> None:
    target = store.root.parent / "precious"
    target.write_bytes(b"precious")
    (store.root / "uploads").mkdir(exist_ok=True)
    (store.root / "uploads" / SHA256).symlink_to(target)
    assert_problem(append(client, CONTENT, 0, len(CONTENT)), 503, "store-unavailable")
    assert target.read_bytes() == b"precious"


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.fault
def test_a_blob_that_finds_no_space_is_refused_before_it_is_sent(small_disk: Path) -> None:
    with blob_server(small_disk) as server, httpx.Client(base_url=f"{server.url}/api/v1/blobs") as client:
        client.headers.update(AUTHORIZED)
        problem = assert_problem(begin(client, 9 * MIB), 507, "storage-full")
        assert "9,437,184 more would come" in str(problem["detail"])


@pytest.mark.fault
def test_a_disk_that_fills_up_meanwhile_stops_the_upload_which_goes_on_later(small_disk: Path) -> None:
    content = CONTENT * 200
    sha256 = hashlib.sha256(content).hexdigest()
    with blob_server(small_disk) as server, httpx.Client(base_url=f"{server.url}/api/v1/blobs") as client:
        client.headers.update(AUTHORIZED)
        assert begin(client, len(content), sha256).status_code == 200
        filler = fill(small_disk, leave_bytes=MIB)
        assert_problem(append(client, content, 0, len(content), sha256), 507, "storage-full")
        assert_problem(begin(client, len(content), sha256), 507, "storage-full")
        filler.unlink()
        offset = begin(client, len(content), sha256).json()["offset"]
        assert offset > 0
        assert append(client, content[offset:], offset, len(content), sha256).status_code == 201
        assert client.get(f"/{sha256}").content == content
