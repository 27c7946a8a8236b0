"""Examines an installation: what is there, what would be used, what to fix."""

import asyncio
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ktrdr.errors import KtrdrError
from ktrdr.plugins import PLUGIN_GROUPS, installed_plugins
from ktrdr.registry import Registry
from ktrdr.settings import Settings

_PACKAGES = ("ktrdr", "torch", "TA-Lib", "numpy", "pandas", "pyarrow", "sqlalchemy", "pydantic", "obstore")
_LOW_DISK_BYTES = 1_000_000_000
_DEVICES_TIMEOUT_S = 60


class Health(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    health: Health
    detail: str
    fix: str | None = None


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one finding at a time; changes nothing that stays."""
    yield _python()
    for package in _PACKAGES:
        yield _package(package)
    yield from _devices()
    yield from _directories(settings)
    yield _database(settings)
    yield _broker(settings)
    yield _market_data(settings)
    yield _strategies(settings)
    if any(installed_plugins(group) for group in PLUGIN_GROUPS):
        from ktrdr.language.catalog import REGISTRIES

        yield from examine_plugins(REGISTRIES)


def examine_plugins(registries: Mapping[str, Registry[Any]]) -> Iterator[Finding]:
    """Look at the implementations of other distributions, by what they are called in the plural."""
    for family, registry in registries.items():
        for name, _ in registry:
            if (plugin := registry.plugin_of(name)) is not None:
                yield Finding("plug-in", Health.OK, f"{name} ({family}) of {plugin}")
        for fault in registry.faults():
            yield Finding("plug-in", Health.PROBLEM, fault.message, fault.fix)


def _python() -> Finding:
    return Finding("python", Health.OK, f"{platform.python_version()} on {platform.platform(terse=True)}")


def _package(name: str) -> Finding:
    try:
        return Finding(name.lower(), Health.OK, version(name))
    except PackageNotFoundError:
        return Finding(
            name.lower(),
            Health.PROBLEM,
            "not installed",
            f"Install it: {sys.executable} -m pip install {name}",
        )


def _devices() -> Iterator[Finding]:
    # In a process of its own: a torch that crashes on import is a finding, not the end of the doctor.
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "host_agent.devices"],
            capture_output=True,
            text=True,
            timeout=_DEVICES_TIMEOUT_S,
            check=True,
        )
        devices = json.loads(ran.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        stderr = getattr(error, "stderr", None)
        last_line = (
            stderr.strip().splitlines()[-1] if isinstance(stderr, str) and stderr.strip() else str(error)
        )
        yield Finding(
            "devices",
            Health.PROBLEM,
            f"torch cannot be used: {last_line}",
            f"Reinstall torch: {sys.executable} -m pip install --force-reinstall torch",
        )
        return
    for device in devices:
        memory = f", {device['memory_bytes'] / 1e9:.1f} GB" if device.get("memory_bytes") else ""
        yield Finding(f"device {device['device']}", Health.OK, f"{device['name']}{memory}")


def _directories(settings: Settings) -> Iterator[Finding]:
    for subject, path in (("home", settings.home), ("models", settings.models_dir)):
        yield _writable(subject, path.absolute())


def _writable(subject: str, path: Path) -> Finding:
    # What does not exist yet is created on first use, in the nearest parent that does.
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        variable = "KTRDR_HOME" if subject == "home" else "KTRDR_MODELS_DIR"
        return Finding(
            subject,
            Health.PROBLEM,
            f"{path} is not writable: {reason}",
            f"Make it writable, or set {variable} to a directory that is.",
        )
    free = shutil.disk_usage(existing).free
    detail = f"{path} ({free / 1e9:.1f} GB free)"
    if free < _LOW_DISK_BYTES:
        return Finding(subject, Health.WARNING, detail, "Free some disk space: models and snapshots need it.")
    return Finding(subject, Health.OK, detail)


def _database(settings: Settings) -> Finding:
    from ktrdr.backend.database_url import parse_url, shown
    from ktrdr.backend.store import OperationStore

    try:
        url = shown(parse_url(settings.database))
        if not OperationStore.exists(settings):
            return Finding("database", Health.OK, f"{url} (is created on first use)")
        with OperationStore.open(settings) as store:
            counts = store.count_by_state()
    except KtrdrError as error:
        return Finding("database", Health.PROBLEM, error.message, error.fix)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no operations yet"
    return Finding("database", Health.OK, f"{url} ({summary})")


def _broker(settings: Settings) -> Finding:
    if settings.broker_url is None:
        return Finding("broker", Health.OK, "in this process (KTRDR_BROKER_URL is not set)")
    from ktrdr.app.operating import check_broker
    from ktrdr.bus.findings import Mark

    try:
        found = asyncio.run(check_broker(settings))
    except KtrdrError as error:
        return Finding("broker", Health.PROBLEM, error.message, error.fix)
    broker = found[0]
    wrong = [each for each in found if each.mark is Mark.WRONG]
    if not wrong:
        return Finding("broker", Health.OK, broker.detail)
    first = f"{wrong[0].part} {wrong[0].name} {wrong[0].detail}"
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Finding("broker", Health.PROBLEM, f"{broker.detail}: {first}{more}", "See: ktrdr broker check")


def _market_data(settings: Settings) -> Finding:
    from ktrdr.market.directory import BarDirectory

    try:
        found = BarDirectory(settings.data_dir).list()
    except KtrdrError as error:
        return Finding("market data", Health.WARNING, error.message, error.fix)
    if not found:
        return Finding(
            "market data",
            Health.WARNING,
            f"no SYMBOL_TIMEFRAME.csv or .parquet in {settings.data_dir.absolute()}",
            "Put bars there, or name another directory with --data or KTRDR_DATA_DIR.",
        )
    names = ", ".join(f"{bars.symbol} {bars.timeframe}" for bars in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return Finding("market data", Health.OK, f"{settings.data_dir.absolute()}: {names}{more}")


def _strategies(settings: Settings) -> Finding:
    from ktrdr.strategy import StrategyDirectory

    count = len(StrategyDirectory(settings.strategies_dir).list())
    detail = f"{count} in {settings.strategies_dir.absolute()}"
    if not count:
        return Finding(
            "strategies", Health.WARNING, detail, "Name a directory that has some with KTRDR_STRATEGIES_DIR."
        )
    return Finding("strategies", Health.OK, detail)
