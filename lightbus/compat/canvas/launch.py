"""Sending a canvas: ids for all that it is made of, then its first messages. What follows travels in those.

A chain goes out as its first task, with the other steps in the message's `chain`; a group as all its tasks; a chord as
the tasks of its header, each with the body in the message's `chord`, after the counter has been told how many to wait
for. Whoever runs a message, Lightbus or Celery, sends what comes next.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..asyncresult import AsyncResult
from ..chordpauses import Pauses
from ..groupresult import GroupResult, oldest
from ..together import together_or_later
from .compose import Chain, Chord, Chunks, Group, add_step, signature
from .signature import Signature, as_list

if TYPE_CHECKING:
    from ..app import TaskApp

_FLOW_KEYS = ("root_id", "parent_id", "group_id", "group_index", "chord")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What a canvas is a part of.

    Attributes:
        group_id, group_index: of the group whose member it is.
        chord: the body that waits for it.
    """

    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    group_index: int | None = None
    chord: Mapping[str, Any] | None = None


def freeze(app: TaskApp, sig: Signature, task_id: str | None, flow: Flow) -> Any:
    """Give `sig` and all that it is made of their ids, those that have none yet.

    Args:
        task_id: of its last task.

    Returns:
        The result of its last task, whose parents are the results of those before; None for an empty chain.
    """
    match sig:
        case Chain():
            return _freeze_chain(app, sig, task_id, flow)
        case Group():
            return _freeze_group(app, sig, task_id, flow)
        case Chord():
            body = freeze(app, sig.body, task_id, flow)
            group_id = sig.options.setdefault("task_id", str(uuid.uuid4()))
            header = Group(sig.tasks, app=app)
            within = Flow(root_id=flow.root_id, parent_id=flow.parent_id)
            oldest(body).parent = _freeze_group(app, header, group_id, within)
            sig.kwargs["header"] = header.tasks
            return body
    options = sig.options
    found = str(options.setdefault("task_id", task_id or str(uuid.uuid4())))
    if not options.get("reply_to") and (reply_to := app.results.expect(found)):
        options["reply_to"] = reply_to
    for key in _FLOW_KEYS:
        value = getattr(flow, key)
        if value is not None:
            options.setdefault(key, value)
    return AsyncResult(found, app=app)


def planned(chain: Chain) -> list[Signature]:
    """The steps of a chain as they run: chains in it unfolded, a group before another step made a chord."""
    steps: list[Signature] = []
    for one in chain.steps():
        add_step(steps, one)
    return steps


def _freeze_chain(app: TaskApp, chain: Chain, task_id: str | None, flow: Flow) -> Any:
    steps = planned(chain)
    last = later = None
    for step in reversed(steps):
        if later is None:
            last = later = freeze(app, step, task_id, flow)
            continue
        before = freeze(app, step, None, Flow(root_id=flow.root_id))
        oldest(later).parent = before
        later = before
    for key in ("link", "link_error"):
        chain.options.pop(key, None)  # they are the steps' now
    chain.kwargs["tasks"] = steps
    if last is not None:
        chain.options["task_id"] = last.id
    return last


def _freeze_group(app: TaskApp, group: Group, task_id: str | None, flow: Flow) -> GroupResult:
    group_id = str(group.options.setdefault("task_id", task_id or str(uuid.uuid4())))
    members = group.members()
    results = []
    for index, one in enumerate(members):
        within = Flow(
            root_id=flow.root_id,
            parent_id=flow.parent_id,
            # Not its own: who sends a group gives it one, and a member that has one already would keep that. But of a
            # group at the end of a chain in a chord's header the chord counts the members.
            group_id=flow.group_id,
            group_index=index,
            chord=flow.chord,
        )
        results.append(freeze(app, one, None, within))
    group.kwargs["tasks"] = members
    return GroupResult(group_id, results, app=app)


def launch(
    app: TaskApp, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
) -> Any:
    """Send `sig`; see `Signature.apply_async`. All its messages are confirmed together."""
    with together_or_later(timeout_seconds=app.settings.publish_timeout_seconds):
        return _Launch(app).launch(sig, args, kwargs, options)


class _Launch:
    """One canvas on its way out."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app

    def launch(self, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
        match sig:
            case Chain():
                return self._chain(sig, args, kwargs, options)
            case Group():
                return self._group(sig, args, kwargs, options)
            case Chord():
                return self._chord(sig, args, kwargs, options)
            case Chunks():
                return self._group(sig.group(), (), {}, {**sig.options, **options})
        merged_args, merged_kwargs, merged = sig.merged(args, kwargs, options)
        if sig.subtask_type in ("xmap", "xstarmap"):
            merged.setdefault("route_name", sig.kwargs["task"].task)  # it goes where its task is served
        task = self._app.tasks.get(sig.task)
        if task is not None:
            return task.apply_async(merged_args, merged_kwargs, **merged)
        return self._app.send_task(sig.task, merged_args, merged_kwargs, **merged)

    def _chain(self, chain: Chain, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
        whole = chain.clone()
        assert isinstance(whole, Chain)
        rest = {**whole.options, **options}
        flow = Flow(**{key: rest.pop(key, None) for key in _FLOW_KEYS})
        task_id, links, errbacks = rest.pop("task_id", None), rest.pop("link", None), rest.pop("link_error", None)
        whole["options"] = {"link": as_list(links), "link_error": as_list(errbacks)}
        result = _freeze_chain(self._app, whole, task_id, flow)
        if result is None:
            return None
        first, *others = whole.tasks
        if others or rest.get("chain"):
            # The next step is the last of the list.
            rest["chain"] = [*(rest.get("chain") or ()), *reversed(others)]
        if flow.root_id is not None:
            rest["root_id"] = flow.root_id
        if flow.parent_id is not None:
            rest["parent_id"] = flow.parent_id
        own = () if whole.immutable else (*args, *whole.args)
        sent = self.launch(first, own, kwargs, rest)
        return result if others else sent

    def _group(self, group: Group, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
        if options.get("link") or options.get("link_error"):
            raise TypeError("a group has no end of its own to link to: use a chord, or link its tasks")
        own_options = group.options
        rest = {**own_options, **options}
        group_id = rest.pop("task_id", None) or str(uuid.uuid4())
        rest["group_id"] = own_options.get("group_id") or group_id
        add_to_parent = rest.pop("add_to_parent", True)
        results = []
        for index, member in enumerate(group.members()):
            within = {**rest, "group_index": index, "add_to_parent": False}
            results.append(self.launch(member, args, kwargs, within))
        result: Any = GroupResult(group_id, results, app=self._app)
        if len(results) == 1 and isinstance(results[0], GroupResult):
            result = results[0]  # the one member is a chain that ends in a group
        if add_to_parent:
            self._app.add_child(result)
        return result

    def _chord(self, chord: Chord, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
        whole = chord.clone()
        assert isinstance(whole, Chord)
        body, body_id = whole.body, options.get("task_id")
        rest = {**whole.options, **options}
        rest.pop("task_id", None)  # the chord's own is that of its header
        for callback in as_list(rest.pop("link", None)):
            body.link(signature(callback, app=self._app))
        for errback in as_list(rest.pop("link_error", None)):
            body.link_error(signature(errback, app=self._app))
        header_only = {key: rest.pop(key) for key in ("countdown", "eta", "parent_id") if rest.get(key) is not None}
        rest.pop("add_to_parent", None)
        pauses = Pauses(interval_seconds=rest.pop("interval", None), max_retries=rest.pop("max_retries", None))
        # What comes after the chord, and what the chord is a part of, is the body's affair.
        body["options"] = body.merged((), {}, rest)[2]
        result = freeze(self._app, whole, body_id, Flow(root_id=rest.get("root_id")))
        members, header = whole.tasks, oldest(result)
        if not members:
            self.launch(body, ([],), {}, {})
            return result
        self._app.chords.begin(header, sum(map(counted, members)), body, pauses)
        for key in ("chain", "chord", "group_id", "group_index"):
            rest.pop(key, None)
        own = () if whole.immutable else (*args, *whole.args)
        named = {**whole.kwargs["kwargs"], **kwargs}
        for index, member in enumerate(members):
            attach(member, body)
            within = {"group_id": header.id, "group_index": index, "add_to_parent": False}
            self.launch(member, own, named, {**rest, **header_only, **within})
        self._app.add_child(result)
        return result


def counted(sig: Signature) -> int:
    """How many ends of tasks a chord hears of from this member of its header."""
    match sig:
        case Group():
            return sum(counted(one) for one in sig.tasks)
        case Chain():
            return next((size for one in reversed(sig.tasks) if (size := counted(one))), 0)
        case Chord():
            return counted(sig.body)
    return 1


def attach(sig: Signature, body: Signature) -> None:
    """Let the last tasks of `sig` report to the chord with this body."""
    match sig:
        case Group():
            for one in sig.tasks:
                attach(one, body)
        case Chain():
            attach(sig.tasks[-1], body)
        case Chord():
            attach(sig.body, body)
        case _:
            sig.options["chord"] = body


def run_here(
    app: TaskApp, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """Run `sig` in the caller; see `Signature.apply`."""
    match sig:
        case Chain():
            result = None
            given = {**sig.options, **options}
            links = as_list(given.pop("link", None))
            steps = planned(sig)
            for number, step in enumerate(steps):
                for callback in links if number == len(steps) - 1 else ():
                    step.link(signature(callback, app=app))
                before, values = result, args if result is None else (result.get(),)
                result = run_here(app, step, values, kwargs if before is None else {}, given if before is None else {})
                result.parent = before
                if not result.successful():
                    break
            return result
        case Group():
            members = [run_here(app, one, args, kwargs, options) for one in sig.members()]
            return GroupResult(str(options.get("task_id") or uuid.uuid4()), members, app=app)
        case Chord():
            header = run_here(app, Group(sig.tasks, app=app), args, kwargs, {})
            result = run_here(app, sig.body, (header.get(),), {}, options)
            oldest(result).parent = header
            return result
        case Chunks():
            return run_here(app, sig.group(), args, kwargs, options)
    merged_args, merged_kwargs, merged = sig.merged(args, kwargs, options)
    return sig.type.apply(merged_args, merged_kwargs, **merged)
