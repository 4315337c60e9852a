from __future__ import annotations

import contextlib
import json
import math
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import kombu.compression
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus.compat import Settings
from lightbus.compat import json as compat_json
from lightbus.compat.fields import Fields, Headers, moment, read_headers
from lightbus.compat.protocol import TaskMessage, decode_task, encode_task
from lightbus.core.errors import DecodeError
from lightbus.core.message import MAX_BODY_BYTES, Wire
from tests.compat.bench import golden, golden_wire

MESSAGES = {one["name"]: one for one in golden("messages")}
PLAIN = [one for one in MESSAGES.values() if one["headers"].get("task") and "compression" not in one["headers"]]


def wire(headers: dict[str, Any] | None = None, body: Any = None, **fields: Any) -> Wire:
    data = body if isinstance(body, bytes) else json.dumps([[1], {}, None] if body is None else body).encode()
    return Wire(body=data, headers={"task": "t", "id": "i", **(headers or {})}, **fields)


@pytest.mark.parametrize("recorded", PLAIN, ids=lambda one: str(one["name"]))
def test_a_celery_message_read_and_written_again_has_the_same_bytes_and_headers(recorded: dict[str, Any]) -> None:
    received = golden_wire(recorded)

    written = encode_task(decode_task(received))

    assert written.body == received.body
    assert written.headers == received.headers
    assert list(written.headers) == list(received.headers)
    assert msgspec.structs.replace(written, headers={}) == msgspec.structs.replace(received, headers={})


@pytest.mark.parametrize("recorded", MESSAGES.values(), ids=lambda one: str(one["name"]))
def test_every_recorded_message_survives_a_round_trip_as_protocol_2(recorded: dict[str, Any]) -> None:
    message = decode_task(golden_wire(recorded))

    again = decode_task(encode_task(message))

    assert again == msgspec.structs.replace(
        message, root_id=message.root_id or message.id, headers=message.headers, lang=message.lang, utc=None
    )


@pytest.mark.parametrize("name", ["gzip", "bzip2"])
def test_compressed_bodies_are_read(name: str) -> None:
    assert decode_task(golden_wire(MESSAGES[name])).args == (1, 2)


def test_rich_values_arrive_as_what_they_were() -> None:
    (values,) = decode_task(golden_wire(MESSAGES["rich values"])).args

    assert values["datetime"] == datetime(2026, 11, 24, 3, 0, 0, 250000, tzinfo=timezone.utc)
    assert values["date"] == date(2026, 11, 24)
    assert values["decimal"] == Decimal("12.50")
    assert values["uuid"] == uuid.UUID("6f1b5f0a-7b1c-4d0e-8a44-0a2b6f0d9e11")
    assert (values["bytes"], values["base64"]) == (b"text", b"\xff\x00\xfe")


def test_options_of_a_celery_message_have_their_fields() -> None:
    links = decode_task(golden_wire(MESSAGES["links"]))
    limits = decode_task(golden_wire(MESSAGES["limits"]))
    custom = decode_task(golden_wire(MESSAGES["headers and properties"]))
    chain = decode_task(golden_wire(MESSAGES["chain"]))

    assert links.callbacks is not None
    assert links.callbacks[0]["task"] == "golden.add"
    assert links.errbacks is not None
    assert links.errbacks[0]["options"] == {"queue": "errors"}
    assert limits.timelimit == (30, 20.5)
    assert (custom.headers, custom.properties) == ({"tenant": "a", "n": 3}, {"app_id": "shop"})
    assert chain.chain is not None
    assert [one["args"] for one in chain.chain] == [[4], [3]]
    assert decode_task(golden_wire(MESSAGES["chord member"])).chord is not None
    assert decode_task(golden_wire(MESSAGES["expires"])).expiration_seconds is not None


def test_protocol_1_is_read_and_its_headers_are_the_users() -> None:
    message = decode_task(golden_wire(MESSAGES["protocol 1 with options"]))

    assert (message.task, message.id, message.args, message.retries) == ("golden.add", "v1-full", (1, 2), 1)
    assert (message.group, message.eta) == ("g", "2030-01-02T03:04:05.678901+00:00")
    assert message.callbacks is not None
    assert message.errbacks is not None
    assert message.chain is None
    assert message.headers == {"tenant": "a"}


def test_a_hybrid_message_takes_its_headers_before_the_fields_of_its_body() -> None:
    body = {"task": "t", "id": "body", "args": [1], "kwargs": {}, "retries": 1}

    message = decode_task(wire({"id": "header"}, body))

    assert (message.id, message.retries, message.args) == ("header", 1, (1,))


def test_the_least_that_celery_accepts_is_accepted() -> None:
    assert decode_task(wire()) == TaskMessage(task="t", id="i", args=(1,), lang=None)


def test_what_handing_over_wrote_on_a_message_is_not_the_users_header() -> None:
    headers = {"x-death": [{}], "x-lightbus-hops": 1, "lightbus_dead_reason": "old", "tenant": "a"}

    assert decode_task(wire(headers)).headers == {"tenant": "a"}


@pytest.mark.parametrize(
    "headers, body, named",
    [
        ({"task": 3}, None, "'task'"),
        ({"id": None}, None, "'id'"),
        ({"id": ""}, None, "'id'"),
        ({"retries": "many"}, None, "'retries'"),
        ({"retries": -1}, None, "'retries'"),
        ({"retries": True}, None, "'retries'"),
        ({"eta": "tomorrow"}, None, "'eta'"),
        ({"eta": 5}, None, "'eta'"),
        ({"expires": {}}, None, "'expires'"),
        ({"timelimit": "30"}, None, "'timelimit'"),
        ({"timelimit": ["a", None]}, None, "'timelimit'"),
        ({"root_id": 1}, None, "'root_id'"),
        ({"group_index": "0"}, None, "'group_index'"),
        ({"ignore_result": "yes"}, None, "'ignore_result'"),
        ({"stamps": []}, None, "'stamps'"),
        ({"stamped_headers": "a"}, None, "'stamped_headers'"),
        ({"compression": "application/x-snappy"}, None, "'compression'"),
        ({"compression": 7}, None, "'compression'"),
        ({"compression": "application/x-gzip"}, None, "application/x-gzip"),
        ({}, [[1], {}], "list of three"),
        ({}, 7, "list [args, kwargs, embed]"),
        ({}, [1, {}, None], "args"),
        ({}, [[1], [], None], "kwargs"),
        ({}, [[1], {}, []], "third part"),
        ({}, [[], {}, {"callbacks": {}}], "'callbacks'"),
        ({}, [[], {}, {"chain": [{"args": []}]}], "'chain'"),
        ({}, [[], {}, {"errbacks": [{"task": "t", "options": 1}]}], "options"),
        ({}, [[], {}, {"chord": "no"}], "'chord'"),
        ({}, b"\xff\xfe", "not the JSON"),
        ({}, b"[" * 100_000, "nested"),
        ({}, b'[[{"__type__": "decimal", "__value__": "x"}], {}, null]', "decimal"),
        ({}, b'[[{"__type__": [], "__value__": "x"}], {}, null]', "type"),
    ],
)
def test_a_wrong_message_is_refused_with_the_name_of_what_is_wrong(
    headers: dict[str, Any], body: Any, named: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_task(wire(headers, body))

    assert named in str(caught.value)


def test_only_json_is_read() -> None:
    with pytest.raises(DecodeError, match="application/x-python-serialize"):
        decode_task(wire(content_type="application/x-python-serialize"))
    with pytest.raises(DecodeError, match="utf-16"):
        decode_task(wire(content_encoding="utf-16"))


def test_a_message_without_a_task_is_said_to_be_none() -> None:
    with pytest.raises(DecodeError, match="no task message"):
        decode_task(Wire(body=b"[[], {}, null]", headers={}))
    with pytest.raises(DecodeError, match="no task message"):
        decode_task(Wire(body=b'{"args": []}', headers={}))


@pytest.mark.parametrize("compression", [*kombu.compression.encoders()])
def test_a_small_body_that_would_fill_the_memory_is_refused_and_one_at_the_limit_is_read(compression: str) -> None:
    """Of whatever kombu can write here: zstd and brotli come with packages of their own."""
    plain = json.dumps([["x" * 1000], {}, None]).encode()
    body, _ = kombu.compression.compress(plain, compression)
    bomb, _ = kombu.compression.compress(b" " * 10_000_000, compression)

    assert decode_task(wire({"compression": compression}, body), len(plain)).args == ("x" * 1000,)
    with pytest.raises(DecodeError, match=f"more than {len(plain) - 1} bytes"):
        decode_task(wire({"compression": compression}, body), len(plain) - 1)
    with pytest.raises(DecodeError, match="more than 1000 bytes"):
        decode_task(wire({"compression": compression}, bomb), 1000)
    with pytest.raises(DecodeError, match=r"is cut off|is not the"):
        decode_task(wire({"compression": compression}, body[:-3]))


def test_a_body_that_is_too_long_without_compression_is_refused_with_the_setting_that_would_let_it_in() -> None:
    with pytest.raises(DecodeError, match=r"at most 1000 are read.*lightbus_task_max_bytes"):
        decode_task(wire({}, b" " * 1001), 1000)
    assert Settings.from_mapping({"lightbus_task_max_bytes": 1000}).task_max_bytes == 1000
    assert Settings().task_max_bytes == MAX_BODY_BYTES == 16 * 2**20


@pytest.mark.parametrize("text", ["2030-01-01T00:00:00Z", "2030-01-01T01:00:00+01:00"])
def test_moments_are_read_with_their_offset(text: str) -> None:
    assert moment(text, None) == datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp()


def test_a_moment_without_an_offset_is_in_the_zone_of_the_app() -> None:
    zone = timezone(timedelta(hours=2))

    assert moment("2030-01-01T02:00:00", zone) == datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
known_names = st.sampled_from(
    ["task", "id", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id", "shadow",
     "ignore_result", "stamps", "stamped_headers", "compression", "replaced_task_nesting", "origin", "lang"]
)  # fmt: skip
known_fields = st.dictionaries(known_names | st.text(max_size=8), json_values, max_size=8)
embeds = st.dictionaries(st.sampled_from(["callbacks", "errbacks", "chain", "chord"]), json_values, max_size=4)
bodies = (
    st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.lists(json_values, max_size=2), st.dictionaries(st.text(max_size=4), json_values), embeds)
    .map(lambda value: json.dumps(value).encode())
    | known_fields.map(lambda value: json.dumps(value).encode())
)  # fmt: skip


@settings(deadline=None)  # other work on the machine is no defect
@given(headers=known_fields, named=st.booleans(), body=bodies, encoding=st.sampled_from(["utf-8", "binary", "x"]))
def test_decoding_raises_only_decode_errors(headers: dict[str, Any], named: bool, body: bytes, encoding: str) -> None:
    if named:
        headers = {"task": "t", "id": "i", **headers}
    received = Wire(body=body, headers=headers, content_encoding=encoding)

    try:
        message = decode_task(received)
    except DecodeError:
        return
    again = decode_task(encode_task(message))
    assert (again.task, again.id, again.retries, again.headers) == (
        message.task, message.id, message.retries, message.headers,
    )  # fmt: skip


@settings(deadline=None)  # other work on the machine is no defect
@given(
    st.recursive(
        st.none() | st.datetimes() | st.dates() | st.times() | st.uuids() | st.binary() | st.text()
        | st.decimals(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_json_with_extras_round_trips_and_equals_kombus(value: Any) -> None:
    from kombu.utils import json as kombu_json

    text = compat_json.dumps(value)

    assert text == kombu_json.dumps(value)
    assert compat_json.loads(text) == value == kombu_json.loads(text)


json_texts = st.one_of(
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
    st.text('{}[]:,"\\u005ftype_0123456789.eE+- NaInfity\n\r\t', max_size=20).map(str.encode),
    st.sampled_from([b"1e400", b"-0", b"-0.0", b"9" * 5000, b'"\\ud800"', b'{"a": 1, "a": 2}', b"[" * 2000, b"NaN",
                     b'{"__type__": "bytes", "__value__": "x"}', b'{"\\u005f_type__": "bytes", "__value__": "x"}',
                     b'\xef\xbb\xbf1', b"[1] ", b"1 1", b"-Infinity", b"5e-324", b"18446744073709551616"]),
)  # fmt: skip


@settings(deadline=None)
@given(json_texts)
def test_json_is_read_as_the_standard_library_reads_it(text: bytes) -> None:
    def outcome(read: Callable[[bytes], object]) -> str:
        try:
            return repr(read(text))  # tells 1 from 1.0 and True, and 0.0 from -0.0
        except (ValueError, RecursionError):
            return "refused"

    hook = compat_json._revive
    expected = outcome(lambda data: json.loads(data.decode("utf-8"), object_hook=hook))

    assert outcome(compat_json.loads) == expected
    with contextlib.suppress(UnicodeDecodeError):
        decoded = text.decode("utf-8")
        assert outcome(lambda data: compat_json.loads(decoded)) == expected


header_values = st.sampled_from(
    [None, True, False, 0, 1, -1, 2**70, 1.5, math.nan, math.inf, "", "x", "2026-01-01", "2026-01-01T00:00:00Z",
     "\ud800", b"x", [], [None], [None, None], [1, 2], [1.5, None, 3], [None, math.nan], [True, 1], ["a"], ["a", 1],
     ("a",), {}, {"a": 1}, {1: 2}, datetime(2026, 1, 1)]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(known_names, header_values, max_size=4), st.booleans())
def test_headers_read_at_once_are_those_read_one_by_one(headers: dict[str, Any], named: bool) -> None:
    if named:
        headers = {"task": "t", "id": "i", **headers}

    def outcome(read: Callable[[], Headers]) -> str:
        try:
            found = read()
        except DecodeError as error:
            return str(error)
        found.retries, found.replaced_task_nesting = found.retries or 0, found.replaced_task_nesting or 0
        found.timelimit, found.stamps = found.timelimit or [None, None], found.stamps or {}
        return repr(found)

    assert outcome(lambda: read_headers("header", headers)) == outcome(Fields("header", headers).headers)
