"""Distributions with plug-ins, as an installer leaves them: modules and a ``dist-info`` in a directory."""

from collections.abc import Mapping
from pathlib import Path


def install(
    site: Path, distribution: str, code: str, entry_points: Mapping[str, str], *, version: str = "1.0"
) -> None:
    """Put a distribution of one module into a directory that is, or will be, on ``sys.path``.

    Args:
        site: the directory.
        distribution: its name; the module has the same with ``_``.
        code: of the module.
        entry_points: ``group:name`` → what it names in the module.
        version: of the distribution.
    """
    module = distribution.replace("-", "_")
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = []
    for key, value in entry_points.items():
        group, name = key.split(":")
        lines += [f"[{group}]", f"{name} = {module}:{value}"]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
