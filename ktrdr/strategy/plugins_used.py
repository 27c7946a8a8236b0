"""Which implementations of other distributions a strategy is made of."""

from typing import Any

from ktrdr.features.indicators import INDICATORS
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.labels import LABELS
from ktrdr.losses import LOSSES
from ktrdr.networks import NETWORKS
from ktrdr.plugins import Plugin
from ktrdr.registry import Registry
from ktrdr.strategy.strategy import Strategy


def plugins_used(strategy: Strategy) -> tuple[Plugin, ...]:
    """Return each plug-in once, by group and name."""
    plan = strategy.feature_plan
    used: list[tuple[Registry[Any], object]] = [(INDICATORS, each) for each in plan.indicators.values()]
    used += [(MEMBERSHIPS, column.membership) for column in plan.columns if column.membership is not None]
    used += [(LABELS, strategy.label), (NETWORKS, strategy.network), (LOSSES, strategy.training.loss)]
    found = {registry.plugin_of(registry.name_of(type(each))) for registry, each in used}
    return tuple(
        sorted((each for each in found if each is not None), key=lambda each: (each.group, each.name))
    )
