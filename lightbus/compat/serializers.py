"""Serializers for bodies of tasks and for results: JSON, and by the registry of kombu YAML, msgpack, pickle and what
an application has registered there.

JSON is written and read by `json` alone. Of the others only those are read that `accept_content` names; pickle lets
whoever can write to the queue run what they like, so nothing here turns it on by itself. Names and content types are
kombu's: `kombu.serialization.register` is how an application adds its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError
from . import json

JSON = "json"
JSON_TYPES = frozenset({"application/json", "application/x-json", "text/json"})
_PACKAGES = {"yaml": "pyyaml", "msgpack": "msgpack"}  #: which pip installs, for kombu's serializers that need one


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as bytes, with what a reader has to know of them."""

    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


def encode(value: Any, name: str) -> Encoded:
    """`value` by the serializer `name`. What is a signature in it becomes a plain dict, which any side can read.

    Raises:
        ValueError: the serializer is not known or not installed, or the value has no form in it.
    """
    if name == JSON:
        return Encoded(json.dumps(value).encode("utf-8"))
    kind = content_type_of(name)
    from kombu import serialization  # here, since JSON needs nothing of it

    try:
        kind, encoding, payload = serialization.dumps(_plain(value), serializer=name)
    except Exception as error:  # each serializer has errors of its own
        raise ValueError(f"cannot be written as {name}: {error}{_hint(name)}") from error
    return Encoded(payload.encode(encoding) if isinstance(payload, str) else bytes(payload), kind, encoding)


def decode(body: bytes, content_type: str, content_encoding: str = "utf-8") -> Any:
    """The value of what `encode` wrote. To be called only for a content type that `accepts` has let in.

    Raises:
        ValueError: nothing reads that content type, or the body is not of it.
    """
    kind = bare(content_type)
    if kind in JSON_TYPES:
        return json.loads(body)
    from kombu import serialization  # as above

    name = serialization.registry.type_to_name.get(kind)
    if name is None:
        raise ValueError(
            f"has the content type {content_type!r:.100}, for which no serializer is registered with kombu"
        )
    try:
        return serialization.loads(body, kind, content_encoding or "utf-8", accept={kind})
    except Exception as error:  # each serializer has errors of its own, and pickle those of what it makes
        raise ValueError(f"cannot be read as {name}: {error}{_hint(name)}") from error


def accepts(content_type: str, accept: Collection[str]) -> bool:
    """Whether `accept`, names and content types as in `accept_content`, lets a body of `content_type` be read."""
    kind = bare(content_type)
    if kind in JSON_TYPES:
        return JSON in accept or not JSON_TYPES.isdisjoint(accept)
    if kind in accept:
        return True
    from kombu import serialization  # as above

    return serialization.registry.type_to_name.get(kind) in accept


def content_type_of(name: str) -> str:
    """What bodies by the serializer `name` are marked with.

    Raises:
        ValueError: no serializer of that name is registered with kombu.
    """
    if name == JSON:
        return "application/json"
    from kombu import serialization  # as above

    kind: str | None = serialization.registry.name_to_type.get(name)
    if kind is None:
        raise ValueError(
            f"serializer {name!r} is not known: kombu has {', '.join(sorted(serialization.registry.name_to_type))}; "
            "kombu.serialization.register adds others"
        )
    return kind


def bare(content_type: str) -> str:
    """A content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Codec:
    """How results, and what else lies in the result backend, are written and read.

    Attributes:
        accept: which may be read, as in `accept_content`.
    """

    name: str = JSON
    accept: tuple[str, ...] = (JSON,)

    def dumps(self, value: Any) -> bytes:
        """Raises ValueError as `encode` does."""
        return encode(value, self.name).body

    def loads(self, data: bytes) -> Any:
        """What `dumps` wrote; the bytes do not tell by which serializer.

        Raises:
            ValueError: it may not be read, or is not of that serializer.
        """
        if self.name == JSON:
            return json.loads(data)
        return self.loads_as(data, content_type_of(self.name), self.encoding)

    @property
    def encoding(self) -> str:
        """The content encoding of what `dumps` writes."""
        return encode(None, self.name).content_encoding

    def loads_as(self, data: bytes, content_type: str, content_encoding: str) -> Any:
        """As `loads`, of bytes that come with their content type."""
        if not accepts(content_type, self.accept):
            raise ValueError(f"has the content type {content_type!r:.100}, which accept_content does not name")
        return decode(data, content_type, content_encoding)

    def check(self, setting: str) -> None:
        """Raises ConfigError: what `setting` names is not known, or would not be read again."""
        check(setting, self.name)
        if not accepts(content_type_of(self.name), self.accept):
            raise ConfigError(
                f"{setting} = {self.name!r} is not among what accept_content lets in, {', '.join(self.accept)}: "
                "results could not be read again"
            )


JSON_CODEC = Codec()


def check(setting: str, name: str) -> None:
    """Raises ConfigError: the serializer that `setting` names is not known, or its library is not there."""
    try:
        encode([], name)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _hint(name: str) -> str:
    return f" (pip install {_PACKAGES[name]})" if name in _PACKAGES else ""


def _plain(value: Any) -> Any:
    """Signatures as dicts: pickle would name their classes, ours or Celery's, which the other side need not have."""
    if type(value) is dict or (isinstance(value, dict) and "subtask_type" in value):
        return {key: _plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(one) for one in value)
    return value
