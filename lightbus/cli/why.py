"""Why does an app not get a message? Decided from what workers say, what waits, and what was parked. Pure.

What is asked for is an event or a call by its name, `<api>.<name>`; each finding is a cause, with what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..core.anyevent import is_heard
from ..core.api import Api
from ..core.codec import split_version
from ..core.description import ANY_VERSION, Description, RunningListener, ServedApi
from ..core.topology import is_ordered_lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known.

    Attributes:
        found: the answers of the workers on the broker.
        contracts: those of the app at hand, whose code may differ from what runs.
        declared: the app at hand, by name of a bus to its listeners: name, and names of events with their versions.
        waiting: queue to messages that wait; None for no queue. Those of `queues_of` must be there.
        parked: queue to reason and count of dead letters, of the sample that was looked at.
        broker: for people.
    """

    found: Sequence[Description]
    contracts: Sequence[type[Api]] = ()
    declared: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    waiting: Mapping[str, int | None] = field(default_factory=dict)
    parked: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    broker: str = "this broker"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`findings` are causes; `notes` what is as it should be, or worth to know."""

    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def queues_of(name: str, to: str, found: Sequence[Description]) -> set[str]:
    """The queues that the message `name` could wait in for the app `to`, as far as workers tell; perhaps more."""
    listeners = {
        queue
        for running, one in _listeners(found, to)
        if any(is_heard(name, event.name) for event in one.events)
        for queue in (one.queue, *_lanes(one.name, [running]))
    }
    served = {api.queue for _, api in _served(found) if api.name == name.rpartition(".")[0]}
    return (listeners | served) - {""}


def explain(name: str, to: str, sender: str, evidence: Evidence) -> Explanation:
    """Why `to` does not get `name` from `sender`.

    Args:
        to: an app; "" for every listener of an event, or for whoever serves a call.
        sender: an app; "" for whoever sends it.
    """
    events, calls = _known(evidence)
    if name in events or (name not in calls and _is_heard(name, evidence.found)):
        return _event(name, to, sender, evidence)
    if name in calls:
        return _call(name, to, evidence)
    return Explanation((_unknown(name, [*events, *calls], evidence),))


def _unknown(name: str, known: Sequence[str], evidence: Evidence) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"no running worker and no contract at hand knows {name!r}: did you mean {near[0]!r}?"
    if not evidence.found:
        return f"no worker answers on {evidence.broker}, and no contract at hand knows {name!r}: start one, or say -A"
    return (
        f"no running worker and no contract at hand knows {name!r}: does its owner serve the API on {evidence.broker}?"
    )


def _event(name: str, to: str, sender: str, evidence: Evidence) -> Explanation:
    findings, notes = _fired(name, sender, evidence)
    apps = {one.app for one in evidence.found}
    hearing = [
        (one, listener, event.version)
        for one, listener in _listeners(evidence.found, to)
        for event in listener.events
        if is_heard(name, event.name)
    ]
    if not hearing:
        findings.append(_not_heard(name, to, apps, evidence))
    sent = {_major(version) for version in _owned_versions(name, sender, evidence.found)}
    for app, listener, version, workers in _by_listener(hearing):
        if sent and version != ANY_VERSION and _major(version) not in sent:
            findings.append(
                f"listener {listener.name!r} of {app} takes major version {_major(version)} of {name}, and what is "
                f"fired is {_or(sent)}: listen to that one, or let the owner serve and fire both"
            )
        if not listener.queue:
            notes.append(
                f"listener {listener.name!r} of {app} hears it in every process that runs, and nothing is kept"
            )
            continue
        for queue in (listener.queue, *_lanes(listener.name, workers)):
            more, well = _queue(queue, app, workers, evidence)
            findings += more
            notes += well
        if len(workers) > 1:
            notes.append(f"{len(workers)} workers share {listener.queue!r}: each event goes to one of them")
    return Explanation(tuple(findings), tuple(notes))


def _fired(name: str, sender: str, evidence: Evidence) -> tuple[list[str], list[str]]:
    api = name.rpartition(".")[0]
    owners = {one.app: served.version for one, served in _served(evidence.found) if served.name == api}
    if sender and sender not in {one.app for one in evidence.found}:
        return [], [f"no worker of {sender} answers; it may fire from elsewhere, a web process, which says nothing"]
    if sender and owners and sender not in owners:
        return [f"{sender} does not own {api}, {_and(owners)} does: is {name} fired by that one?"], []
    if not owners:
        return [], [f"no worker serves {api}, so nobody says that it fires {name}; whoever has the contract may"]
    return [], [f"{owner} owns {api} {version}" for owner, version in owners.items()]


def _not_heard(name: str, to: str, apps: set[str], evidence: Evidence) -> str:
    if not to:
        return f"no running worker listens to {name}: start one that does"
    declared = [
        one for one, events in evidence.declared.get(to, {}).items() if any(is_heard(name, event) for event in events)
    ]
    if to not in apps:
        there = f"those that do are {_and(sorted(apps))}" if apps else "nobody does"
        text = f"no worker of {to!r} answers on {evidence.broker} ({there}): start one, or look which broker it uses"
        for listener in declared:
            waiting = evidence.waiting.get(f"{to}.on.{listener}")
            text += (
                f"; its queue '{to}.on.{listener}' was never declared, so nothing is kept for it" if waiting is None
                else f"; {waiting} messages wait for it in '{to}.on.{listener}'"
            )  # fmt: skip
        return text
    if declared:
        return (
            f"the code at hand has the listener {declared[0]!r} for {name}, and the workers of {to} that run do not: "
            "start them anew, or see that the module with it is imported, or that -Q does not leave its queue out"
        )
    others = sorted({event.name for _, one in _listeners(evidence.found, to) for event in one.events})
    return f"{to} has no listener for {name}: it listens to {_and(others) or 'nothing'}"


def _call(name: str, to: str, evidence: Evidence) -> Explanation:
    api, _, call = name.rpartition(".")
    serving = [(one, served) for one, served in _served(evidence.found) if served.name == api and to in ("", one.app)]
    if not serving:
        others = sorted({one.app for one, served in _served(evidence.found) if served.name == api})
        who = f"{to!r} does not serve it, {_and(others)} does" if others else f"nobody serves it on {evidence.broker}"
        return Explanation((f"calls of {name} fail at once: {who}; start a worker of its owner",))
    findings: list[str] = []
    notes: list[str] = []
    for wanted in (one for one in evidence.contracts if one.api_name == api):
        same = [served.version for _, served in serving if _major(served.version) == wanted.major()]
        if not same:
            versions = _and(sorted({served.version for _, served in serving}))
            findings.append(f"the contract at hand is {wanted.api_version}, and {versions} runs: calls go to nobody")
        for version in sorted(set(same)):
            if split_version(version) < split_version(wanted.api_version):
                findings.append(
                    f"the contract at hand is {wanted.api_version}, and a worker serves {version}, which rejects it: "
                    "deploy the owner first"
                )
    for one, served in serving:
        if served.contract is not None and call not in served.contract.get("calls", ()):
            findings.append(f"version {served.version}, which {one.app} (pid {one.pid}) serves, has no call {call!r}")
    for queue in sorted({served.queue for _, served in serving}):
        workers = [one for one, served in serving if served.queue == queue]
        more, well = _queue(queue, workers[0].app, workers, evidence)
        findings += more
        notes += [f"{len(workers)} workers serve {queue!r}", *well]
    return Explanation(tuple(findings), tuple(notes))


def _queue(queue: str, app: str, workers: Sequence[Description], evidence: Evidence) -> tuple[list[str], list[str]]:
    """What is wrong with a queue that workers consume, and what is not."""
    waiting, findings = evidence.waiting.get(queue, 0), []
    if waiting is None:
        findings.append(f"queue {queue!r} does not stand, though a worker of {app} consumes it: start that anew")
    elif waiting:
        busy, slots = sum(one.busy for one in workers), sum(one.slots for one in workers)
        findings.append(
            f"{waiting} messages wait in {queue!r}, and {busy} of {slots} handlers of {app} are busy: "
            + ("wait, or start more processes" if busy >= slots else "it is catching up, or held back by a rate")
        )
    for reason, count in evidence.parked.get(queue, {}).items():
        findings.append(f"{count} dead letters are from {queue!r} ({reason}): `lightbus dead ls` says why")
    return findings, [] if findings else [f"{queue!r} is consumed by {app}, and nothing waits in it"]


def _lanes(listener: str, workers: Sequence[Description]) -> list[str]:
    """Where the events of an ordered listener wait too."""
    return sorted({queue for one in workers for queue in one.queues if is_ordered_lane(queue, one.app, listener)})


def _known(evidence: Evidence) -> tuple[dict[str, None], dict[str, None]]:
    """Full names of the events and the calls that somebody knows."""
    events = {f"{api.api_name}.{name}": None for api in evidence.contracts for name in api.api_events}
    calls = {f"{api.api_name}.{name}": None for api in evidence.contracts for name in api.api_calls}
    for _, api in _served(evidence.found):
        contract = api.contract or {}
        events |= {f"{api.name}.{name}": None for name in contract.get("events", ())}
        calls |= {f"{api.name}.{name}": None for name in contract.get("calls", ())}
    events |= {
        event.name: None
        for _, one in _listeners(evidence.found, "")
        for event in one.events
        if event.version != ANY_VERSION
    }
    return events, calls


def _is_heard(name: str, found: Sequence[Description]) -> bool:
    return any(is_heard(name, event.name) for _, one in _listeners(found, "") for event in one.events)


def _listeners(found: Sequence[Description], app: str) -> list[tuple[Description, RunningListener]]:
    return [(one, listener) for one in found if app in ("", one.app) for listener in one.listeners]


def _served(found: Sequence[Description]) -> list[tuple[Description, ServedApi]]:
    return [(one, api) for one in found for api in one.apis]


def _owned_versions(name: str, sender: str, found: Sequence[Description]) -> set[str]:
    api = name.rpartition(".")[0]
    return {served.version for one, served in _served(found) if served.name == api and sender in ("", one.app)}


def _by_listener(
    hearing: Sequence[tuple[Description, RunningListener, str]],
) -> list[tuple[str, RunningListener, str, list[Description]]]:
    """App, listener and version, with the workers that run it."""
    grouped: dict[tuple[str, str, str], tuple[str, RunningListener, str, list[Description]]] = {}
    for one, listener, version in hearing:
        key = (one.app, listener.name, version)
        grouped.setdefault(key, (one.app, listener, version, []))[3].append(one)
    return list(grouped.values())


def _major(version: str) -> int:
    return split_version(version)[0]


def _and(names: Iterable[str]) -> str:
    return ", ".join(names)


def _or(majors: Iterable[int]) -> str:
    return " or ".join(str(major) for major in sorted(majors))
