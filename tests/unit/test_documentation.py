"""What the documentation says, against what the program does."""

import re
from pathlib import Path

import pytest
import typer.main

from ktrdr.backend.states import mermaid
from ktrdr.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                command = line.partition(" #")[0].strip().removeprefix(".venv/bin/")
                if command.startswith("ktrdr "):
                    found.append((page.relative_to(ROOT).as_posix(), command))
    return found


def test_there_are_commands_in_the_documentation() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_documented_command_exists_with_its_options(page: str, command: str) -> None:
    group = typer.main.get_command(app)
    words = command.partition(" | ")[0].split()[1:]
    while words and hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    known = {option for parameter in group.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_state_diagram_is_that_of_the_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = page.partition("<!-- states -->\n```mermaid\n")[2].partition("```\n<!-- /states -->")[0]
    assert drawn == mermaid()


def test_files_that_the_architecture_names_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in re.findall(r"`((?:ktrdr|host_agent)/[a-z_/]+\.py)`", page):
        assert (ROOT / name).is_file(), name
