"""The log: how it is set up, what it never shows, and who reads along."""

from ktrdr.logs.configuring import (
    LogFormat,
    LogLevel,
    configure_logging,
    configure_logging_of_guest,
)

__all__ = ["LogFormat", "LogLevel", "configure_logging", "configure_logging_of_guest"]
