"""Whether a policy on the broker takes away what the topology relies on; AMQP alone does not tell."""

import re
from collections.abc import Iterable, Iterator, Sequence
from shlex import quote

from ktrdr.bus.management import Policy
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.topology import QueueKind, shared_topology
from ktrdr.drill.results import BrokenPromiseError, UncheckableError
from ktrdr.drill.scene import Drill, Kept, Scene

_LOSING = ("max-length", "max-length-bytes", "message-ttl", "expires")
_CONSUMER_TIMEOUT = "consumer-timeout"
_LONGEST_HOLD_MS = 20 * 60 * 1000
"""The backend holds a message for so long at most, while a disk is full or a database away."""
_NAMED = 3


async def _run(scene: Scene) -> Kept:
    if scene.management is None:
        raise UncheckableError(
            "AMQP does not tell which policies there are.",
            "Name the management API: --management http://USER:PASSWORD@HOST:15672",
        )
    if scene.management.policies is None:
        raise UncheckableError(
            "This user of the management API may not see policies.",
            "Give it the tag 'policymaker' or 'administrator', or name another.",
        )
    topology = shared_topology()
    # Bounded queues may lose what is stale, and a stream forgets anyway.
    queues = [queue.name for queue in topology.queues if queue.kind is QueueKind.QUORUM]
    names = {
        "queues": [wire_name(name, scene.prefix_in_use) for name in queues],
        "exchanges": [wire_name(exchange.name, scene.prefix_in_use) for exchange in topology.exchanges],
    }
    harm = list(_harm(scene.management.policies, names["queues"], names["exchanges"]))
    if harm:
        raise BrokenPromiseError(
            "; ".join(f"policy '{policy.name}' {what}" for policy, what in harm) + ".",
            *dict.fromkeys(_removal(policy, scene.broker.vhost) for policy, _ in harm),
        )
    return Kept(
        f"none of {len(scene.management.policies)} policies is in the way of names that begin with "
        f"{scene.prefix_in_use}"
    )


def _harm(
    policies: Sequence[Policy], queues: Sequence[str], exchanges: Sequence[str]
) -> Iterator[tuple[Policy, str]]:
    """Return each policy in effect on one of these names that is harmful, and what it does."""
    for policy, names in _in_effect(policies, queues, ("queues", "quorum_queues", "all")):
        for key in _LOSING:
            if key in policy.definition:
                yield policy, f"loses messages of {_some(names)} ({key} {policy.definition[key]})"
        timeout_ms = policy.definition.get(_CONSUMER_TIMEOUT)
        if isinstance(timeout_ms, int) and timeout_ms < _LONGEST_HOLD_MS:
            yield policy, f"takes consumers of {_some(names)} away ({_CONSUMER_TIMEOUT} {timeout_ms})"
    for policy, names in _in_effect(policies, exchanges, ("exchanges", "all")):
        if "alternate-exchange" in policy.definition:
            yield policy, f"hides what no queue takes from {_some(names)} (alternate-exchange)"


def _in_effect(
    policies: Sequence[Policy], names: Iterable[str], kinds: Sequence[str]
) -> list[tuple[Policy, list[str]]]:
    """Return the policies that count, each with the names for which it does: of each sort only one does."""
    found: dict[int, tuple[Policy, list[str]]] = {}
    for name in names:
        for is_operator in (False, True):
            matching = [
                policy
                for policy in policies
                if policy.is_operator is is_operator
                and policy.applies_to in kinds
                and _matches(policy.pattern, name)
            ]
            if matching:
                policy = max(matching, key=lambda each: each.priority)
                found.setdefault(id(policy), (policy, []))[1].append(name)
    return list(found.values())


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        # The broker reads Perl's dialect; what only that knows is taken to match, and a person looks.
        return True


def _removal(policy: Policy, vhost: str) -> str:
    command = "clear_operator_policy" if policy.is_operator else "clear_policy"
    return (
        f"Narrow the pattern '{policy.pattern}', so that it does not match ktrdr's names, or remove it: "
        f"rabbitmqctl {command} -p {quote(vhost)} {quote(policy.name)}"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


DRILL = Drill(
    name="policies",
    title="Policies that an administrator has set",
    promise="none of them drops messages or hides what cannot be delivered",
    run=_run,
    limit_s=10.0,
)
