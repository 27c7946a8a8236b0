"""What to change, with the command that changes it."""

from shlex import quote

from ktrdr.drill.names import FAMILY
from ktrdr.drill.scratch_broker import ScratchBroker
from ktrdr.errors import AccessRefusedError, BusUnavailableError, KtrdrError, PublishBlockedError


def permissions(broker: ScratchBroker) -> tuple[str, ...]:
    """Return how to let a user run drills, without giving it more on the names in use."""
    names, vhost = f"^{FAMILY}", quote(broker.vhost)
    patterns = f"'{names}' '^({FAMILY}|amq\\.default$)' '{names}'"
    return (
        "Give the drill a user of its own, who may only use its scratch names: "
        f"rabbitmqctl add_user drill PASSWORD; rabbitmqctl set_permissions -p {vhost} drill {patterns}",
        f"Or add {names} to the patterns that {broker.user} has: "
        f"rabbitmqctl list_user_permissions {quote(broker.user)}",
    )


def policies(broker: ScratchBroker, *keys: str) -> tuple[str, ...]:
    """Return how to find the policy that does this, by what it may say."""
    vhost = quote(broker.vhost)
    what = " or ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))
    return (
        f"Look for a policy with {what} whose pattern matches names of ktrdr: "
        f"rabbitmqctl list_policies -p {vhost}; rabbitmqctl list_operator_policies -p {vhost}. "
        f"Remove it (rabbitmqctl clear_policy -p {vhost} NAME; clear_operator_policy for the other kind), or "
        "narrow its pattern so that it does not match ^ktrdr.",
    )


def explain(error: KtrdrError, broker: ScratchBroker) -> tuple[str, ...]:
    """Return what to change when a drill ended in an error of the bus."""
    match error:
        case PublishBlockedError():
            return (
                "Give the broker memory or disk space: rabbitmq-diagnostics alarms says what it lacks; the "
                "limits are vm_memory_high_watermark and disk_free_limit in rabbitmq.conf.",
            )
        case AccessRefusedError():
            return permissions(broker)
        case BusUnavailableError():
            return (
                "See in the broker's log why it closed the connection or did not answer, and whether a load "
                "balancer or firewall in between ends connections.",
            )
    return (error.fix,) if error.fix else ()
