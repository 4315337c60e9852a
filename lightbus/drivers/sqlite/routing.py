"""Which routing keys a topic pattern takes. Pure; `topology.py` keeps the patterns.

Words are separated by dots. `*` stands for exactly one word, `#` for any number of words, none included. An empty key
has no words at all, as in RabbitMQ, so `*` does not take it and `#` does.
"""

from __future__ import annotations

from functools import lru_cache


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


@lru_cache(maxsize=4096)  # a bus has few patterns and few keys, and each publish asks for all of them
def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether the binding `pattern` takes `routing_key`. Time grows with the product of their lengths, never faster."""
    words = _words(routing_key)
    # reached[i]: the part of the pattern read so far can stand for the first i words.
    reached = [True] + [False] * len(words)
    for part in _words(pattern):
        if part == "#":
            for i in range(1, len(reached)):
                reached[i] = reached[i] or reached[i - 1]
        else:
            reached = [False] + [before and part in ("*", word) for before, word in zip(reached, words, strict=False)]
    return reached[-1]
