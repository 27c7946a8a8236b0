"""What every command prints with."""

import io
import re

from rich.text import Text

from ktrdr.cli.output import PlainConsole


def test_the_terminal_obeys_nothing_that_an_agent_says() -> None:
    """Titles, clipboards, colours and the direction of text are set by what begins with ESC, and the like."""
    said = io.StringIO()
    console = PlainConsole(file=said, force_terminal=True, width=100, highlight=False)
    for hostile in ("\x1b]0;owned\x07", "\x9b2J", "a\rb", "\u202egnp.exe"):
        console.print(Text(f"x{hostile}y", "red"), hostile)
    colours = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
    assert not set(colours) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
    assert "�]0;owned" in colours
