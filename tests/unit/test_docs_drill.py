"""The page about the drill, against the drills."""

from pathlib import Path

from ktrdr.drill.catalog import DRILLS

PAGE = Path(__file__).parents[2] / "docs" / "drill.md"


def test_the_page_lists_every_drill_in_its_order() -> None:
    table = PAGE.read_text().partition("<!-- drills -->\n")[2].partition("<!-- /drills -->")[0]
    rows = [f"| `{drill.name}` | {drill.title} | {drill.promise} |" for drill in DRILLS]
    assert table.splitlines()[2:] == rows
