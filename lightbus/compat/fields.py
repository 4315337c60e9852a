"""The fields of a task message that are not in its body: read, and checked one by one. Pure."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone, tzinfo
from typing import Annotated, Any

import msgspec

from ..core.errors import DecodeError
from ..core.message import MAX_COUNT, MAX_NAME_LENGTH

Seconds = float | None

#: A longer time limit is none: ten years.
MAX_LIMIT_SECONDS = 10 * 366 * 86400.0


def is_name(value: object) -> bool:
    """Whether it may be the name or the id of something: text, neither empty nor too long, of whole characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and (value.isascii() or _is_whole(value))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: no key of a result can hold it
        return False
    return True


def moment(text: str, zone: tzinfo | None) -> float:
    """Unix seconds of an `eta` or `expires`; one without an offset is in `zone` (None: the machine's own).

    Raises:
        ValueError: it is no ISO 8601 moment, or one that no clock shows.
    """
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"  # Python 3.10 does not read the Z
    found = datetime.fromisoformat(text)
    try:
        return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class Headers(msgspec.Struct, kw_only=True):
    """The fields of a message that are not in its body, checked. `msgspec.convert` makes it twenty times as quickly
    as `Fields.headers`, which is asked where that refuses: it says what is wrong, or takes what is merely unusual."""

    task: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    retries: _Count | None = None
    eta: str | None = None
    expires: str | None = None
    timelimit: list[float | None] | None = None
    root_id: _Name | None = None
    parent_id: _Name | None = None
    group: _Name | None = None
    group_index: Annotated[int, msgspec.Meta(ge=-MAX_COUNT, le=MAX_COUNT)] | None = None
    shadow: _Name | None = None
    origin: str | None = None
    lang: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: _Count | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    utc: bool | None = None


NO_LIMITS = [None, None]


def read_headers(what: str, values: Mapping[str, object]) -> Headers:
    try:
        read = msgspec.convert(values, Headers)
    except (msgspec.ValidationError, UnicodeError):  # half a surrogate pair is the latter
        return Fields(what, values).headers()
    names = (read.id, read.task, read.group or "", read.root_id or "", read.parent_id or "", read.shadow or "")
    if not "".join(names).isascii():
        return Fields(what, values).headers()  # which looks at each character: the keys of results are made of these
    # What a type does not say: whether a text is a moment, and whether a number is one that a clock can wait.
    if read.eta is not None:
        read.eta = Fields(what, values).moment("eta")
    if read.expires is not None:
        read.expires = Fields(what, values).moment("expires")
    if read.timelimit is not None and read.timelimit != NO_LIMITS:
        read.timelimit = list(Fields(what, values).limits("timelimit"))
    return read


_REPR = reprlib.Repr()  # writes the beginning of a value only, where `repr` writes all of it, however deep and long
_REPR.maxstring = _REPR.maxother = 100


def short(value: object) -> str:
    return _REPR.repr(value)[:100]


class Fields:
    """Reads one field after the other, and says which one is wrong."""

    def __init__(self, what: str, values: Mapping[str, object]) -> None:
        self._what = what
        self._values = values

    def headers(self) -> Headers:
        names = self.names("stamped_headers")
        return Headers(
            task=self.name("task"),
            id=self.name("id"),
            retries=self.count("retries"),
            eta=self.moment("eta"),
            expires=self.moment("expires"),
            timelimit=list(self.limits("timelimit")),
            root_id=self.text("root_id"),
            parent_id=self.text("parent_id"),
            group=self.text("group"),
            group_index=self.integer("group_index"),
            shadow=self.text("shadow"),
            origin=self.loose_text("origin"),
            lang=self.loose_text("lang"),
            argsrepr=self.loose_text("argsrepr"),
            kwargsrepr=self.loose_text("kwargsrepr"),
            ignore_result=self.boolean("ignore_result"),
            replaced_task_nesting=self.count("replaced_task_nesting"),
            stamped_headers=None if names is None else list(names),
            stamps=self.mapping("stamps"),
            utc=self.boolean("utc"),
        )

    def name(self, key: str) -> str:
        value = self._values.get(key)
        if not is_name(value):
            raise self._wrong(key, f"non-empty text of at most {MAX_NAME_LENGTH} characters", value)
        return str(value)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and value != "" and not is_name(value):
            raise self._wrong(key, f"text of at most {MAX_NAME_LENGTH} characters or null", value)
        return None if value is None else str(value)

    def loose_text(self, key: str) -> str | None:
        """A field that only logs read: clients in other languages put all sorts of things there."""
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self._wrong(key, "an integer or null", value)
        if value is not None and abs(value) > MAX_COUNT:
            raise self._wrong(key, f"an integer of at most {MAX_COUNT}", value)
        return value

    def count(self, key: str) -> int:
        value = self.integer(key) or 0
        if value < 0:
            raise self._wrong(key, "an integer of 0 or more", value)
        return value

    def boolean(self, key: str) -> bool | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true, false or null", value)
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self._wrong(key, "an object or null", value)
        return dict(value or {})

    def names(self, key: str) -> tuple[str, ...] | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
            raise self._wrong(key, "a list of texts or null", value)
        return tuple(value)

    def limits(self, key: str) -> tuple[Seconds, Seconds]:
        value = self._values.get(key)
        if value is None or (isinstance(value, (list, tuple)) and len(value) < 2):
            return None, None
        if not isinstance(value, (list, tuple)) or not all(_is_seconds(one) for one in value[:2]):
            raise self._wrong(key, "a list of two numbers of 0 or more, or nulls, [hard, soft]", value)
        return value[0], value[1]

    def moment(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, datetime):  # a client may use AMQP's own type for it
            return value.isoformat()
        if not isinstance(value, str):
            raise self._wrong(key, "an ISO 8601 moment or null", value)
        try:
            moment(value, timezone.utc)
        except ValueError:
            raise self._wrong(key, "an ISO 8601 moment or null", value) from None
        return value

    def _wrong(self, key: str, wanted: str, value: object) -> DecodeError:
        if value is None:
            return DecodeError(f"{self._what} {key!r} is missing; it must be {wanted}")
        return DecodeError(f"{self._what} {key!r} must be {wanted}, got {short(value)}")


def _is_seconds(value: object) -> bool:
    """Whether a clock can wait for it: a limit below 0 would end the process of a handler before it begins."""
    return value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_LIMIT_SECONDS
    )
