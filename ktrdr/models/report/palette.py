"""Colours by role. The values, for light and dark, are custom properties in `report.css`."""

from collections.abc import Sequence

_ROLES = {
    "up": ("BUY", "UP", "BULLISH", "LONG"),
    "down": ("SELL", "DOWN", "BEARISH", "SHORT"),
    "flat": ("HOLD", "NEUTRAL", "RANGING", "FLAT"),
    "wild": ("VOLATILE",),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}

OTHERS = ("other-1", "other-2", "other-3", "other-4", "other-5", "other-6")
"""Roles for what has no meaning of its own, to be told apart; in this order."""


def class_roles(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the role of each class: by its meaning if it has one, so that BUY always looks the same."""
    roles: list[str] = []
    others = iter(OTHERS * (len(classes) // len(OTHERS) + 1))
    for name in classes:
        role = _ROLE_OF.get(name.upper())
        roles.append(role if role and role not in roles else next(others))
    return tuple(roles)


def colour(role: str, opacity: float = 1.0) -> str:
    """Return what stands for the colour in a figure; the page's script resolves it for the current theme."""
    return f"@{role}" if opacity == 1.0 else f"@{role}/{opacity:g}"
