"""A contract document as typed Python: what `lightbus contract pull` writes for callers in another repository. Pure."""

from __future__ import annotations

import base64
import keyword
import re
from collections.abc import Mapping

from ..core.errors import ConfigError
from .document import REFERENCE, Json, resolve

#: Format of a JSON Schema string to the Python type and the module that it is imported from.
_FORMATS: Mapping[str, tuple[str, str]] = {
    "date-time": ("datetime", "datetime"), "date": ("date", "datetime"), "time": ("time", "datetime"),
    "duration": ("timedelta", "datetime"), "uuid": ("UUID", "uuid"), "decimal": ("Decimal", "decimal"),
}  # fmt: skip
_PLAIN = {"integer": "int", "number": "float", "boolean": "bool", "null": "None", "string": "str"}
#: Keyword of JSON Schema to the argument of `msgspec.Meta`.
_LIMITS: Mapping[str, str] = {
    "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt", "multipleOf": "multiple_of",
    "minLength": "min_length", "maxLength": "max_length", "pattern": "pattern", "minItems": "min_length",
    "maxItems": "max_length", "tz": "tz",
}  # fmt: skip
_LINE = 110
_NOTHING = object()
_IMMUTABLE = (str, int, float, bool, type(None))


def source_of(api: Json) -> str:
    """The module of one API, with the names, fields, types and plain defaults of the contract.

    A default that is no plain value becomes UNSET: its field is then left out of what is sent.

    Raises:
        ConfigError: a name of the document is no Python name.
    """
    return _Writer(api).module()


class _Writer:
    """Collects what a module imports and declares while its types are written down."""

    def __init__(self, api: Json) -> None:
        self._api = api
        self._imports: dict[str, set[str]] = {"lightbus": {"Api"}}
        self._declared: dict[str, list[str]] = {}  # name of a type to its lines, in the order of need

    def module(self) -> str:
        api = self._api
        for name in api["$defs"]:
            self._declare(name)
        body = [f'class {_class_name(api["name"])}(Api, name="{api["name"]}", version="{api["version"]}"):']
        for name, schema in api["events"].items():
            self._imports["lightbus"].add("Event")
            body += [f"    class {_name(name)}(Event):", *_indented(self._fields(schema), 2), ""]
        for name, schema in api["errors"].items():
            self._imports["lightbus"].add("ApiError")
            body += [f"    class {_name(name)}(ApiError):", *_indented(self._fields(schema), 2), ""]
        for name, call in api["calls"].items():
            body += [*_indented(self._call(name, call), 1), ""]
        if len(body) == 1:
            body.append("    pass")
        lines = [
            f'"""API {api["name"]} {api["version"]}, written by `lightbus contract pull`: change the original."""', "",
            *self._import_lines(), "",
        ]  # fmt: skip
        for declared in self._declared.values():
            lines += ["", *declared, ""]
        text = "\n".join([*lines, "", *body]).rstrip()
        return re.sub(r"\n{4,}", "\n\n\n", text) + "\n"

    def _import_lines(self) -> list[str]:
        lines = ["from __future__ import annotations", ""]
        modules = sorted(self._imports, key=lambda module: (module in ("lightbus", "msgspec"), module))
        for module in modules:
            names = sorted(name for name in self._imports[module] if name)
            lines.append(f"from {module} import {', '.join(names)}" if names else f"import {module}")
        return lines

    def _call(self, name: str, call: Json) -> list[str]:
        self._imports["lightbus"].add("rpc")
        options = [f"timeout_seconds={call.get('timeout_seconds', 5.0)!r}"]
        if call.get("errors"):
            options.append(f"errors=[{', '.join(map(_name, call['errors']))}]")
        if call.get("idempotent"):
            options.append("idempotent=True")
        arguments = self._fields(call["arguments"]) if call["arguments"].get("properties") else []
        result = self._type(call["result"])
        head = f"def {_name(name)}(self{', *, ' if arguments else ''}{', '.join(arguments)}) -> {result}:"
        if len(head) > _LINE:
            head = f"def {_name(name)}(\n        self, *,\n        {', '.join(arguments)},\n    ) -> {result}:"
        return [f"@rpc({', '.join(options)})", head, "    raise NotImplementedError"]

    def _fields(self, schema: Json, *, in_dataclass: bool = False) -> list[str]:
        """A line for each field; `pass` when there is none."""
        required = set(schema.get("required", ()))
        lines = []
        for name, inner in schema.get("properties", {}).items():
            hint, default = self._type(inner), ""
            if name not in required:
                default = self._default(inner, in_dataclass)
                if default == "UNSET":
                    self._imports.setdefault("msgspec", set()).update({"UNSET", "UnsetType"})
                    hint += " | UnsetType"
            lines.append(f"{_name(name)}: {hint}" + (f" = {default}" if default else ""))
        return lines or ["pass"]

    def _default(self, schema: Json, in_dataclass: bool) -> str:
        if schema.get("default") in ([], {}):
            kind = type(schema["default"]).__name__
            if in_dataclass:
                self._import("dataclasses", "field")
                return f"field(default_factory={kind})"
            return repr(schema["default"])
        whole = resolve(schema, self._api["$defs"])
        default = whole.get("default", _NOTHING)
        if whole.get("contentEncoding") == "base64" and isinstance(default, str):
            return repr(base64.b64decode(default))
        return repr(default) if isinstance(default, _IMMUTABLE) and _is_literal(whole, default) else "UNSET"

    def _type(self, schema: Json) -> str:
        if "$ref" in schema:
            return self._declare(schema["$ref"].removeprefix(REFERENCE))
        if "anyOf" in schema:
            return " | ".join(dict.fromkeys(self._type(one) for one in schema["anyOf"]))
        if "enum" in schema:
            self._import("typing", "Literal")
            return f"Literal[{', '.join(map(repr, schema['enum']))}]"
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self._type({**schema, "type": one}) for one in kind)
        match kind:
            case "string":
                return self._text_type(schema)
            case "array" if "prefixItems" in schema:
                return f"tuple[{', '.join(map(self._type, schema['prefixItems']))}]"
            case "array":
                return self._limited(f"list[{self._type(_inner(schema.get('items')))}]", schema)
            case "object" if schema.get("properties"):
                return self._declare_as(_class_name(schema.get("title", "Value")), schema)
            case "object":
                return f"dict[str, {self._type(_inner(schema.get('additionalProperties')))}]"
        if kind in _PLAIN:
            return self._limited(_PLAIN[kind], schema)
        self._import("typing", "Any")
        return "Any"

    def _text_type(self, schema: Json) -> str:
        if schema.get("contentEncoding") == "base64":
            return "bytes"
        if (known := _FORMATS.get(schema.get("format", ""))) is None:
            return self._limited("str", schema)
        self._import(known[1], known[0])
        # A moment of the format has an offset; a naive one is text without a format.
        return self._limited(known[0], {"tz": True} if known[0] == "datetime" else {})

    def _limited(self, hint: str, schema: Json) -> str:
        limits = [f"{name}={schema[keyword]!r}" for keyword, name in _LIMITS.items() if keyword in schema]
        if not limits:
            return hint
        self._import("typing", "Annotated")
        self._import("msgspec", "Meta")
        return f"Annotated[{hint}, Meta({', '.join(limits)})]"

    def _import(self, module: str, name: str) -> None:
        self._imports.setdefault(module, set()).add(name)

    def _declare(self, name: str) -> str:
        return self._declare_as(_class_name(name), self._api["$defs"][name])

    def _declare_as(self, name: str, schema: Json) -> str:
        if name in self._declared:
            return name
        self._declared[name] = []  # before its fields are looked at, since one may be of this very type
        if schema.get("type") == "object" and "properties" in schema:
            self._import("dataclasses", "dataclass")
            lines = [
                "@dataclass(kw_only=True)",
                f"class {name}:",
                *_indented(self._fields(schema, in_dataclass=True), 1),
            ]
        else:
            lines = [f"{name} = {self._type(schema)}"]
        del self._declared[name]  # to stand after what it needs
        self._declared[name] = lines
        return name


def _inner(schema: object) -> Json:
    return schema if isinstance(schema, dict) else {}


def _is_literal(schema: Json, default: object) -> bool:
    """Whether a JSON default is itself the Python value: a moment or an id is not the text that it is written as."""
    if not isinstance(default, str):
        return True
    alternatives = schema.get("anyOf", [schema])
    return not any("format" in one or "contentEncoding" in one or "$ref" in one for one in alternatives)


def _indented(lines: list[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]


def _name(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is no Python name, so no contract can be written for it")
    return name


def _class_name(name: str) -> str:
    """`support.tickets` to `Tickets`, `Page_int_` to `PageInt`; a name that is one already stays."""
    last = name.rpartition(".")[2]
    if last.isidentifier() and "_" not in last and last[:1].isupper():
        return _name(last)
    return _name("".join(part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", last) if part))
