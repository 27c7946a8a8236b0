"""The description of the HTTP API, for those who write clients.

``python -m ktrdr.backend.api.openapi [--check] DIR`` writes ``openapi.json``, or tells if it is not current.
A backend serves the same at ``/api/v1/openapi.json``.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from pydantic import SecretStr

from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.service import Operations, Service, Trainings
from ktrdr.backend.database import Database
from ktrdr.backend.instances import Instances
from ktrdr.backend.refuse import Clean
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.dead_letter_office import DeadLetterOffice
from ktrdr.events import generated
from ktrdr.settings import Settings

_FILE = "openapi.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    return generated.run("ktrdr.backend.api.openapi", openapi_files(), arguments, owned=_FILE)


def openapi_files() -> Mapping[str, str]:
    """Return name → content of the file."""
    return {_FILE: json.dumps(_description(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"}


def _description() -> dict[str, Any]:
    with TemporaryDirectory() as directory:
        settings = Settings(home=Path(directory))
        with OperationStore(Database(settings.database), Instances(settings.instances_dir)) as store:
            # Described, not called: nothing is asked of what is behind the routes.
            service = Service(
                settings,
                store,
                cast(Operations, None),
                cast(Trainings, None),
                cast(DeadLetterOffice, None),
                cast(Clean, None),
            )
            blobs = DirectoryBlobStore(settings.blobs_dir)
            app = create_app(blobs, token=SecretStr("never shown to anybody"), service=service)
            return app.openapi()


if __name__ == "__main__":
    sys.exit(main())
