"""Topic matching, against the definition."""

from hypothesis import given
from hypothesis import strategies as st

from ktrdr.bus.matching import topic_matches

WORDS = st.sampled_from(["a", "b", ""])
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), max_size=6).map(".".join)
KEYS = st.lists(WORDS, max_size=6).map(".".join)


def matches_by_definition(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches_by_definition(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches_by_definition(pattern[1:], words[1:])


def split(key: str) -> list[str]:
    return key.split(".") if key else []


@given(PATTERNS, KEYS)
def test_a_pattern_matches_what_the_definition_says(pattern: str, key: str) -> None:
    assert topic_matches(pattern, key) == matches_by_definition(split(pattern), split(key))


def test_a_pattern_of_many_hashes_does_not_take_exponential_time() -> None:
    assert not topic_matches(".".join(["#", "a"] * 60), ".".join(["a"] * 500 + ["b"]))
