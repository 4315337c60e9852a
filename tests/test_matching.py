"""Routing keys against bindings, by AMQP's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.matching import key_matches, topic_matches

words = st.lists(st.sampled_from(["a", "b", "cc"]), max_size=6)
patterns = st.lists(st.sampled_from(["a", "b", "cc", "*", "#"]), max_size=6)


def by_recursion(pattern: list[str], key: list[str]) -> bool:
    """The rule as AMQP 0.9.1 words it; slow for many `#`."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(by_recursion(pattern[1:], key[taken:]) for taken in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and by_recursion(pattern[1:], key[1:])


@given(patterns, words)
def test_a_topic_matches_as_the_rule_says(pattern: list[str], key: list[str]) -> None:
    assert topic_matches(".".join(pattern), ".".join(key)) == by_recursion(pattern, key)


def test_many_wildcards_take_no_exponential_time() -> None:
    assert not topic_matches(".".join(["#", "a"] * 200), ".".join(["a"] * 150 + ["b"]))


@pytest.mark.parametrize(
    "kind, pattern, key, expected",
    [
        ("direct", "a.*", "a.b", False),
        ("direct", "a", "a", True),
        ("fanout", "x", "y", True),
        ("topic", "a.*", "a.b", True),
        ("topic", "a+", "aa", False),
        ("topic", "a.#", "a", True),
    ],
)
def test_the_kind_of_exchange_decides(kind: str, pattern: str, key: str, expected: bool) -> None:
    assert key_matches(kind, pattern, key) is expected


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="headers"):
        key_matches("headers", "a", "a")
