"""Contracts as running workers announce them: which there are, and whether an app's own go with them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from ..core.codec import split_version
from ..core.description import Description
from .compare import Comparison, compare
from .document import FORMAT, Json, read_document


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """An app's contracts against the live ones.

    Attributes:
        owned: of the APIs that the app serves: whether its code may take the place of what runs.
        used: of the others: whether what runs answers what the app was written against.
        unserved: of the others, those of which only other major versions run: what is wanted, and what there is.
        absent: names of APIs that no worker serves, so there was nothing to compare.
    """

    owned: tuple[Comparison, ...] = ()
    used: tuple[Comparison, ...] = ()
    unserved: tuple[tuple[str, str, str], ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def is_fine(self) -> bool:
        return not self.unserved and all(one.is_fine for one in (*self.owned, *self.used))


def live_document(found: Sequence[Description]) -> Json:
    """All contracts that workers announce, each version once, by name and version.

    Raises:
        ConfigError: one of them is no contract.
    """
    apis = {
        (api.name, *split_version(api.version)): api.contract
        for one in found
        for api in one.apis
        if api.contract is not None
    }
    document = {"lightbus_contract": FORMAT, "apis": [apis[key] for key in sorted(apis)]}
    return read_document(msgspec.json.encode(document), "what the workers announce")


def newest_of_each(document: Json) -> Json:
    """The document with the highest version of each API."""
    newest = {api["name"]: api for api in sorted(document["apis"], key=lambda api: split_version(api["version"]))}
    return {**document, "apis": list(newest.values())}


def check_live(app: Json, served: Collection[str], live: Json) -> LiveCheck:
    """Compare the contracts of an app with those that run, each in the direction in which it matters.

    Args:
        app: the app's document; `served` are the names of those that it serves.
        live: from `live_document`; while versions take turns there are several of an API, and each counts.
    """
    owned: list[Comparison] = []
    used: list[Comparison] = []
    unserved: list[tuple[str, str, str]] = []
    absent: list[str] = []
    for api in app["apis"]:
        running = [other for other in live["apis"] if other["name"] == api["name"]]
        same_major = [other for other in running if _major(other) == _major(api)]
        if not running:
            absent.append(api["name"])
        elif api["name"] in served:
            owned += [one for other in running for one in compare(_document(other), _document(api))]
        elif not same_major:
            unserved.append((api["name"], api["version"], ", ".join(other["version"] for other in running)))
        used += [
            one
            for other in same_major
            if api["name"] not in served
            for one in compare(_document(api), _document(other))
        ]
    return LiveCheck(tuple(owned), tuple(used), tuple(unserved), tuple(absent))


def _document(api: Json) -> Json:
    return {"lightbus_contract": FORMAT, "apis": [api]}


def _major(api: Json) -> int:
    return split_version(api["version"])[0]
