"""What goes wrong in getting a PostgreSQL."""


class PostgresUnavailableError(Exception):
    """There is no PostgreSQL to test with; the message names the one command that gets one."""


class PostgresFailedError(Exception):
    """A private PostgreSQL did not start; the message ends with what it said."""
