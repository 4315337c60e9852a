"""A contract as an AsyncAPI 3.1 document, from the owner's point of view: it sends events and receives calls.

Addresses are those of the wire (docs/reference/wire.md): an event's routing key on the exchange of all events, the
queue that the owners of an API share, and for answers whatever queue a call names. Pure.
"""

from __future__ import annotations

from ..core.codec import JSON_TYPE, PROBLEM_TYPE, split_version
from ..core.topology import EVENTS_EXCHANGE, event_route, rpc_queue
from .document import REFERENCE, Json

VERSION = "3.1.0"


def asyncapi_of(api: Json) -> Json:
    """The AsyncAPI document of one API of a contract document."""
    name, major = api["name"], split_version(api["version"])[0]
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    schemas: Json = {**api["$defs"], "Problem": _PROBLEM}
    for event, schema in api["events"].items():
        address = event_route(f"{name}.{event}", major).routing_key
        schemas[f"event.{event}"] = schema
        messages[event] = _message(f"{name}.{event}", f"event.{event}")
        channels[event] = {
            "address": address,
            "messages": {event: {"$ref": f"#/components/messages/{event}"}},
            "bindings": {"amqp": {
                "is": "routingKey", "bindingVersion": "0.3.0",
                "exchange": {"name": EVENTS_EXCHANGE, "type": "topic", "durable": True, "autoDelete": False},
            }},
        }  # fmt: skip
        operations[f"fire.{event}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{event}"},
            "messages": [{"$ref": f"#/channels/{event}/messages/{event}"}],
        }
    if api["calls"]:
        queue = rpc_queue(name, major).name
        channels["calls"] = {
            "address": queue, "messages": {},
            "bindings": {"amqp": {
                "is": "queue", "bindingVersion": "0.3.0",
                "queue": {"name": queue, "durable": True, "exclusive": False, "autoDelete": False},
            }},
        }  # fmt: skip
        channels["answers"] = {"address": None, "messages": {"problem": {"$ref": "#/components/messages/problem"}}}
        messages["problem"] = _message("problem", "Problem", PROBLEM_TYPE)
    for call, described in api["calls"].items():
        for suffix, key, channel in (("arguments", "arguments", "calls"), ("result", "result", "answers")):
            whole = f"{call}.{suffix}"
            schemas[whole] = described[key]
            messages[whole] = _message(f"{name}.{call}", whole)
            channels[channel]["messages"][whole] = {"$ref": f"#/components/messages/{whole}"}
        operations[f"serve.{call}"] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/calls"},
            "messages": [{"$ref": f"#/channels/calls/messages/{call}.arguments"}],
            "reply": {
                "address": {"location": "$message.header#/reply_to", "description": "the property reply_to"},
                "channel": {"$ref": "#/channels/answers"},
                "messages": [
                    {"$ref": f"#/channels/answers/messages/{call}.result"},
                    {"$ref": "#/channels/answers/messages/problem"},
                ],
            },
        }
    for error, schema in api["errors"].items():
        schemas[f"error.{error}"] = schema
    document = {
        "asyncapi": VERSION,
        "info": {"title": name, "version": api["version"]},
        "defaultContentType": JSON_TYPE,
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas, "messages": messages},
    }
    rewritten = _rewritten(document)
    assert isinstance(rewritten, dict)
    return rewritten


_PROBLEM: Json = {
    "title": "Problem", "description": "RFC 9457; `type` is `api:NAME` for a declared error, `fields` are its own",
    "type": "object", "required": ["type", "title"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "detail": {"type": "string"},
        "retryable": {"type": "boolean"}, "fields": {"type": "object"},
    },
}  # fmt: skip


def _message(name: str, schema: str, content_type: str = JSON_TYPE) -> Json:
    return {"name": name, "contentType": content_type, "payload": {"$ref": f"#/components/schemas/{schema}"}}


def _rewritten(value: object) -> object:
    """References to where AsyncAPI keeps schemas, and no discriminator objects of OpenAPI, which it does not know."""
    if isinstance(value, list):
        return [_rewritten(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inner.replace(REFERENCE, "#/components/schemas/")
        if key == "$ref" and isinstance(inner, str)
        else _rewritten(inner)
        for key, inner in value.items()
        if not (key == "discriminator" and isinstance(inner, dict) and "propertyName" in inner and "type" not in inner)
    }
