"""Which bindings a routing key matches."""

from ktrdr.bus.topology import ExchangeKind


def binding_matches(kind: ExchangeKind, binding_key: str, routing_key: str) -> bool:
    """Return whether an exchange of that kind sends the routing key through the binding."""
    match kind:
        case ExchangeKind.FANOUT:
            return True
        case ExchangeKind.DIRECT:
            return binding_key == routing_key
        case ExchangeKind.TOPIC:
            return topic_matches(binding_key, routing_key)


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return whether dotted words match: ``*`` stands for one word, ``#`` for any number of words.

    A word may be empty (``a..b`` has three), except that the empty key has no words at all.
    Takes at most (words of the pattern) × (words of the key) steps.
    """
    expected, words = _words(pattern), _words(routing_key)
    at, word = 0, 0
    hash_at, hash_word = -1, 0  # the last '#', and the first word after those that it stands for
    while word < len(words):
        if at < len(expected) and expected[at] == "#":
            hash_at, hash_word = at, word
            at += 1
        elif at < len(expected) and expected[at] in ("*", words[word]):
            at, word = at + 1, word + 1
        elif hash_at >= 0:
            # Let the last '#' stand for one word more. Earlier ones need not: it could stand for theirs.
            hash_word += 1
            at, word = hash_at + 1, hash_word
        else:
            return False
    return all(rest == "#" for rest in expected[at:])


def _words(key: str) -> list[str]:
    return key.split(".") if key else []
