"""Every type that a payload may have: through an event and a call, as a valid schema, and refused where it is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from queue import Queue
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union
from uuid import UUID

import attrs
import jsonschema
import msgspec
import pydantic
import pytest
from msgspec import Meta

from lightbus import Api, ApiError, BadArguments, Bus, Event, rpc
from lightbus.contracts.document import DIALECT, document_of
from lightbus.core.schema import decode_problem, encode_event, encode_problem, problem_of_declared, rebuild_declared
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from tests.runtime.workers import working


@dataclasses.dataclass
class Plain:
    id: int
    tags: list[str] = dataclasses.field(default_factory=list)


@attrs.define
class Attrs:
    id: int
    inner: Plain | None = None


class Typed(TypedDict):
    id: int


class Struct(msgspec.Struct):
    id: int


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    barks: bool


class Pair(NamedTuple):
    left: int
    right: str


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Model(pydantic.BaseModel):
    id: int
    born: date
    inner: Inner | None = None


class Inner(pydantic.BaseModel):
    price: Decimal


Model.model_rebuild()


@dataclass(frozen=True)
class Case:
    """`wrong` does not fit `kind`; the error names the place in `field`, and `expected`."""

    kind: Any
    value: object
    wrong: object
    expected: str
    field: str = "value"


MODEL = Model(id=1, born=date(2026, 1, 2), inner=Inner(price=Decimal("1.5")))
CASES = [
    Case(int, 7, "seven", "Expected `int`"),
    Case(float, 1.5, "x", "Expected `float`"),
    Case(bool, True, 1, "Expected `bool`"),
    Case(str, "ü\n", b"x"[0], "Expected `str`"),
    Case(bytes, b"\x00\xff", 5, "Expected `bytes`"),
    Case(Decimal, Decimal("1.10"), "x", "Invalid decimal"),
    Case(datetime, datetime(2026, 1, 2, 3, 4, 5, 6000, timezone.utc), "x", "Invalid RFC3339"),
    Case(date, date(2026, 1, 2), "x", "Invalid RFC3339"),
    Case(time, time(1, 2, 3), 7, "Expected `time`"),
    Case(timedelta, timedelta(days=1, seconds=2), "x", "Invalid ISO8601"),
    Case(UUID, UUID(int=7), "x", "Invalid UUID"),
    Case(Color, Color.RED, "blue", "Invalid enum value"),
    Case(Level, Level.LOW, 9, "Invalid enum value"),
    Case(Literal["a", "b"], "b", "c", "Invalid enum value"),
    Case(Optional[int], None, "x", "Expected `int | null`"),  # noqa: UP045  # people write it
    Case(Union[int, str], "x", 1.5, "Expected `int | str`"),  # noqa: UP007
    Case(list[int], [1, 2], [1, "x"], "Expected `int`", "value[1]"),
    Case(tuple[int, str], (1, "a"), (1,), "Expected `array` of length 2"),
    Case(set[int], {1, 2}, {"x"}, "Expected `int`", "value[0]"),
    Case(dict[str, Decimal], {"a": Decimal("2")}, {"a": "x"}, "Invalid decimal", "value[...]"),
    Case(Plain, Plain(1, ["a"]), Plain("x"), "Expected `int`", "value.id"),  # type: ignore[arg-type]
    Case(Attrs, Attrs(1, Plain(2)), Attrs(1, Plain("x")), "Expected `int`", "value.inner.id"),  # type: ignore[arg-type]
    Case(Typed, {"id": 1}, {}, "missing required field `id`"),
    Case(Struct, Struct(1), Struct("x"), "Expected `int`", "value.id"),  # type: ignore[arg-type]
    Case(Cat | Dog, Dog(True), Struct(1), "missing required field `type`"),
    Case(Pair, Pair(1, "a"), Pair("x", "a"), "Expected `int`", "value[0]"),  # type: ignore[arg-type]
    Case(Model, MODEL, {"id": 1}, "born"),
    Case(list[Model], [Model(id=1, born=date(2026, 1, 2))], [{"id": "x"}], "id", "value[0]"),
    Case(Annotated[int, Meta(ge=0)], 0, -1, "Expected `int` >= 0"),
    Case(Annotated[str, Meta(max_length=2)], "ab", "abc", "length <= 2"),
]
IDS = [str(getattr(case.kind, "__name__", case.kind)).replace("typing.", "") + f"-{n}" for n, case in enumerate(CASES)]


def api_of(kind: Any) -> Any:
    """An API with one event and one call that carry a `kind`."""

    def echo(self: object, *, value: Any) -> Any:
        raise NotImplementedError

    echo.__annotations__ = {"value": kind, "return": kind}
    happened = type("happened", (Event,), {"__annotations__": {"value": kind}, "__module__": __name__})
    return type(Api)("Echo", (Api,), {"happened": happened, "echo": rpc()(echo)}, name="types.echo", version="1.0")


@pytest.fixture
def app() -> Iterator[tuple[Bus, Bus]]:
    """The owner's bus and a caller's, on one broker in memory."""
    broker = MemoryBroker()
    buses = (Bus("owner", transport=MemoryTransport(broker)), Bus("caller", transport=MemoryTransport(broker)))
    yield buses
    for bus in buses:
        bus.close()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_payload_of_each_type_goes_through_an_event_and_a_call(case: Case, app: tuple[Bus, Bus]) -> None:
    owner, caller = app
    api = api_of(case.kind)
    heard = Queue[object]()
    implementation = type("Owner", (api,), {"echo": rpc()(_annotated(lambda self, *, value: value, case.kind))})
    owner.serve(implementation())
    owner.on(api.happened, name="hear")(lambda event: heard.put(event.value))
    with working(owner):
        caller.fire(api.happened(value=case.value))
        assert heard.get(timeout=30) == case.value
        answer = caller.client(api).echo(value=case.value)
    assert answer == case.value
    assert type(answer) is type(case.value)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_schema_of_each_type_is_valid_and_takes_what_is_sent(case: Case) -> None:
    api = api_of(case.kind)
    (document,) = document_of([api])["apis"]
    schema = {"$schema": DIALECT, **document["events"]["happened"], "$defs": document["$defs"]}

    jsonschema.Draft202012Validator.check_schema(schema)
    sent = msgspec.json.decode(encode_event(api.happened(value=case.value)))
    jsonschema.Draft202012Validator(schema).validate(sent)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_wrong_payload_fails_where_it_is_sent_and_names_field_value_and_type(
    case: Case, app: tuple[Bus, Bus]
) -> None:
    _, caller = app
    api = api_of(case.kind)
    event = api.happened(value=case.wrong)

    with pytest.raises(BadArguments) as fired:
        caller.fire(event)
    with pytest.raises(BadArguments) as called:
        caller.client(api).echo(value=case.wrong)

    for error in (fired.value, called.value):
        assert f"{case.field}: " in str(error)
        assert case.expected in str(error)
        assert "namely" in str(error)


def test_a_missing_an_unknown_and_an_unwritable_field_are_named() -> None:
    api = api_of(int)
    with pytest.raises(TypeError, match="value"):
        api.happened()
    with pytest.raises(TypeError, match="valeu"):
        api.happened(valeu=1)
    with pytest.raises(BadArguments, match=r"value: .*object.*namely|value: object has no JSON form, in <object"):
        encode_event(api.happened(value=object()))


def test_a_declared_error_carries_such_types_too() -> None:
    class Refused(ApiError):
        model: Model
        price: Decimal

    error = Refused("no", model=MODEL, price=Decimal("1.5"))
    problem = decode_problem(encode_problem(problem_of_declared(error)))

    again = rebuild_declared(Refused, problem)
    assert isinstance(again, Refused)
    assert again.fields == {"model": MODEL, "price": Decimal("1.5")}


def _annotated(function: Any, kind: Any) -> Any:
    function.__annotations__ = {"value": kind, "return": kind}
    function.__name__ = "echo"
    return function
