"""The page of the API: whole without the internet, allowed to load nothing else, with examples that run."""

import re
from typing import Any
from urllib.parse import urljoin

import pytest

from ktrdr.backend.states import State
from ktrdr.backend.tokens import Role
from ktrdr.blobs.directory import DirectoryBlobStore
from tests.unit.api_cases import Api
from tests.unit.backend_cases import wish

PAGE = "/api/v1/docs"


async def test_everything_that_the_page_loads_comes_from_the_backend(api: Api) -> None:
    async with api.client(token="") as stranger:
        page = await stranger.get(PAGE)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        start = await stranger.get(f"{PAGE}/start.js")
        named = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
        named += re.findall(r'url: "([^"]+)"', start.text)
        files = {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/start.js"}
        assert set(named) == {*files, "openapi.json"}
        for reference in named:
            loaded = await stranger.get(urljoin(PAGE, reference))
            assert loaded.status_code == 200, reference
            assert loaded.content, reference
        style = (await stranger.get(f"{PAGE}/swagger-ui.css")).text
    assert all(url.strip("\"'").startswith("data:") for url in re.findall(r"url\((.{6})", style))
    # The validator of Swagger UI is the one thing that it would ask elsewhere.
    assert "validatorUrl: null" in start.text


async def test_the_page_may_run_only_scripts_that_are_files_of_the_backend(api: Api) -> None:
    async with api.client(token="") as stranger:
        page = await stranger.get(PAGE)
        script = await stranger.get(f"{PAGE}/start.js")
    policy = dict(each.strip().split(" ", 1) for each in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    inline = re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page.text)
    assert inline == []
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2Fcore.py", "", "x"])
async def test_nothing_else_of_the_package_is_served(api: Api, name: str) -> None:
    async with api.client(token="") as stranger:
        assert (await stranger.get(f"{PAGE}/{name}")).status_code in (404, 307)


async def test_the_examples_run(api: Api) -> None:
    """As whoever presses `Execute` sends them, with the id of an operation that there is."""
    async with api.at_work(), api.client(role=Role.ADMIN) as client:
        blob = DirectoryBlobStore(api.settings.blobs_dir).put(b"bars")
        bars = tuple(each.model_copy(update={"blob": blob}) for each in wish().datasets)
        ended = await api.submitted(datasets=bars)
        await api.backend.cancel(ended, "enough")
        await api.until(ended, State.CANCELLED)
        examples = _examples(api.app.openapi())
        sent_to = {path for _, path, _ in examples}
        assert {"/api/v1/trainings", "/api/v1/operations/{operation_id}/retry"} <= sent_to
        for method, path, body in examples:
            answer = await client.request(method, path.replace("{operation_id}", ended), json=body)
            assert answer.is_success, (method, path, body, answer.text)


def _examples(description: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Every example of a body, with where it is sent."""
    schemas = description["components"]["schemas"]
    found = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for name in re.findall(r"schemas/(\w+)", str(content["schema"])):
                    found += [(method.upper(), path, body) for body in schemas[name].get("examples", ())]
    return found
