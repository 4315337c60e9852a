"""Which bindings of an exchange a routing key meets. Pure; AMQP's rules.

Brokers that route by themselves do not need this; the in-memory broker and tests do.
"""

from __future__ import annotations

from collections.abc import Sequence


def key_matches(kind: str, pattern: str, routing_key: str) -> bool:
    """Whether a binding with `pattern` on an exchange of `kind` takes a message with `routing_key`.

    Raises:
        ValueError: `kind` is not direct, topic or fanout.
    """
    match kind:
        case "fanout":
            return True
        case "direct":
            return pattern == routing_key
        case "topic":
            return topic_matches(pattern, routing_key)
    raise ValueError(f"exchange kind must be 'direct', 'topic' or 'fanout', got {kind!r}")


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Topic rule: words are parted by dots, `*` is exactly one word, `#` is any number of words, also none."""
    if "*" not in pattern and "#" not in pattern:
        return pattern == routing_key
    return _words_match(_words(pattern), _words(routing_key))


def _words(text: str) -> list[str]:
    return text.split(".") if text else []  # an empty key has no word: only "#" meets it


def _words_match(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Row by row instead of by recursion: a pattern with many `#` must not take exponential time."""
    reachable = [True] + [False] * len(words)  # [i]: the pattern so far meets the first i words
    for part in pattern:
        if part == "#":
            for i in range(1, len(reachable)):
                reachable[i] = reachable[i] or reachable[i - 1]
        else:
            reachable = [False] + [reachable[i] and part in ("*", word) for i, word in enumerate(words)]
    return reachable[-1]
