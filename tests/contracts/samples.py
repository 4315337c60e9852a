"""An API with every kind of type that a contract can carry."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
from msgspec import Meta

from lightbus import Api, ApiError, Event, rpc


class Color(Enum):
    RED = "red"
    GREEN = "green"


@dataclasses.dataclass
class Address:
    street: str
    zip: str | None = None


@attrs.define
class Parcel:
    weight: Decimal
    to: Address


class Size(TypedDict):
    width: int
    height: int


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


class Person(pydantic.BaseModel):
    name: str
    born: date
    address: AddressModel | None = None


class AddressModel(pydantic.BaseModel):
    street: str


Person.model_rebuild()


class Shop(Api, name="sample.shop", version="1.0"):
    class shipped(Event):
        id: UUID
        at: Annotated[datetime, Meta(tz=True)]
        parcels: list[Parcel]
        color: Color = Color.RED
        size: Size | None = None
        label: bytes = b""
        level: Annotated[int, Meta(ge=0, le=9)] = 0
        mode: Literal["air", "sea"] = "sea"
        tags: dict[str, tuple[int, str]] = {}  # noqa: RUF012  # msgspec copies it

    class Refused(ApiError):
        reason: str
        until: date

    @rpc(timeout_seconds=2.5, errors=[Refused], idempotent=True)
    def quote(self, *, parcel: Parcel, color: Color = Color.RED, wait: timedelta | None = None) -> dict[str, Decimal]:
        raise NotImplementedError

    @rpc()
    def walk(self, *, node: Node, who: Person) -> list[Node]:
        raise NotImplementedError

    @rpc()
    def ping(self) -> None:
        raise NotImplementedError
