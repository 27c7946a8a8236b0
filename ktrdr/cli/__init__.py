"""The command line: what it says and how; no logic.

Commands import what they need when they run, so that ``ktrdr --help`` is quick: torch is never imported here,
and pandas and SQLAlchemy only by the commands that use them.
"""
