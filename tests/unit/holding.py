"""Who holds what: from one object to all that it leads to."""

import asyncio
import gc
from collections import Counter
from collections.abc import Collection
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType

from sqlalchemy import Engine

_NOT_FOLLOWED = (
    # They lead to everything that there is.
    *(type, ModuleType, FrameType, CodeType, BuiltinFunctionType),
    *(asyncio.AbstractEventLoop, asyncio.Future),
    # A limited number of statements, each with the values of whoever was the first to use it.
    Engine,
)


def holders(root: object, texts: Collection[str]) -> Counter[str]:
    """Return how many of the texts each class of ours holds, in maps, lists and whatever else it leads to.

    Functions count with what they have enclosed. What runs does not: tasks and their frames have what they
    work on, and the test that asks is one of them.
    """
    found: Counter[str] = Counter()
    owners = {id(root): type(root).__qualname__}
    waiting = [root]
    seen = [root]  # an id is its object's only as long as that lives
    while waiting:
        thing = waiting.pop()
        owner = owners[id(thing)]
        for part in _parts(thing):
            if isinstance(part, str):
                found[owner] += part in texts
            elif id(part) not in owners and not isinstance(part, _NOT_FOLLOWED):
                is_ours = type(part).__module__.partition(".")[0] == "ktrdr"
                owners[id(part)] = type(part).__qualname__ if is_ours else owner
                seen.append(part)
                waiting.append(part)
    return +found


def _parts(thing: object) -> Collection[object]:
    if isinstance(thing, FunctionType):
        return [thing.__closure__, thing.__defaults__, thing.__kwdefaults__]
    parts = gc.get_referents(thing)
    # Keys that are texts lead to nothing, so that the garbage collector does not look at them.
    return [*parts, *list(thing)] if isinstance(thing, dict) else parts
