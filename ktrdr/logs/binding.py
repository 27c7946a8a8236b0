"""Which operation the lines of a context are about."""

from contextvars import Context, copy_context

import structlog

from ktrdr.logs.overhearing import overheard_by_nobody


def context_of_no_operation() -> Context:
    """Return a copy of this context whose lines are about no operation and that nobody overhears.

    For tasks that are begun on behalf of one operation and go on for others.
    """
    context = copy_context()
    context.run(structlog.contextvars.unbind_contextvars, "operation_id", "attempt")
    context.run(overheard_by_nobody)
    return context
