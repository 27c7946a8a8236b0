"""The API as a page to read and to try, which loads nothing from anywhere else."""

from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from ktrdr.backend.api.problems import Problem

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ktrdr: the HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<noscript>This page needs JavaScript. The same is in <a href="openapi.json">openapi.json</a>.</noscript>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# The validator would send the description elsewhere. A token is forgotten with the page.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_OF_SWAGGER_UI = {"swagger-ui-bundle.js": _SCRIPT, "swagger-ui.css": _STYLE}
_NOTHING_ELSE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def docs_router() -> APIRouter:
    """Return the routes of the page and of what it loads: open, as the description is."""
    router = APIRouter(prefix="/api/v1/docs", include_in_schema=False)

    @router.get("")
    def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={**_HEADERS, "Content-Security-Policy": _NOTHING_ELSE})

    @router.get("/{name}")
    def loaded(name: str) -> Response:
        # Their content changes with the installation only, their names never.
        headers = {**_HEADERS, "Cache-Control": "max-age=3600"}
        if name == "start.js":
            return Response(_START, media_type=_SCRIPT, headers=headers)
        if name not in _OF_SWAGGER_UI:
            raise Problem(HTTPStatus.NOT_FOUND, "no-such-file", "The page of the API loads no such file.")
        content = (files("fastapi_offline") / "static" / name).read_bytes()
        return Response(content, media_type=_OF_SWAGGER_UI[name], headers=headers)

    return router
