"""Canvas on a broker in memory: what is composed, what travels, what comes of it, and what becomes of failures."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from lightbus.compat import ChordError, chain, chord, chunks, group, signature
from lightbus.compat.canvas import Chain, Chord, Group, Signature
from lightbus.core.outcome import DeadLetter
from tests.compat.bench import Bench


class Sums(Bench):
    """A bench with the tasks that the tests compose."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.notes: list[Any] = []
        self.add = self.task(name="add")(lambda a, b=0: a + b)
        self.total = self.task(name="total")(lambda numbers: sum(numbers))
        self.fail = self.task(name="fail")(self._fail)
        self.note = self.task(name="note")(lambda *args: self.notes.append(list(args)))

    @staticmethod
    def _fail(*args: Any) -> None:
        raise ValueError("no", 7)

    def run(self, sig: Any, *args: Any, **options: Any) -> Any:
        result = sig.apply_async(args, **options)
        self.work()
        return result


@pytest.fixture
def sums() -> Sums:
    return Sums()


def test_pipes_compose_as_celery_composes_them(sums: Sums) -> None:
    add, total = sums.add, sums.total
    pair = group(add.s(1), add.s(2))

    assert repr(add.s(1) | add.s(2) | add.s(3)) == "add(1) | add(2) | add(3)"
    assert type(pair | total.s()) is Chord
    assert type(add.s(1) | pair) is Chain
    three = add.s(1) | pair | total.s() | add.s(4)
    assert [type(one) for one in three.tasks] == [Signature, Chord]
    assert repr(three.tasks[1].body) == "total() | add(4)"
    assert repr(add.s(1) | group(add.s(2))) == "add(1) | add(2)", "a group of one is that one"
    assert repr(add.s(1) | group()) == "add(1)"
    assert type(chain(add.s(1), group())) is Chain
    assert type(chain(pair, total.s())) is Chord
    assert repr(chain(add.s(n) for n in range(2))) == "add(0) | add(1)"
    assert repr((add.s(1) | add.s(2)) | (add.s(3) | add.s(4))) == "add(1) | add(2) | add(3) | add(4)"
    with pytest.raises(TypeError):
        add.s(1) | 5


def test_composing_and_sending_change_nothing_that_was_given(sums: Sums) -> None:
    first, pair = sums.add.s(1), group(sums.add.s(1), sums.add.s(2))
    whole = first | pair | sums.total.s()
    before = json.dumps([first, pair, whole])
    sums.run(whole, 1)
    sums.run(whole, 1)

    assert json.dumps([first, pair, whole]) == before


def test_a_canvas_is_made_of_its_json_form(sums: Sums) -> None:
    whole = sums.add.s(1) | group(sums.add.s(1), sums.add.s(2)) | sums.total.s()

    found = Signature.from_dict(json.loads(json.dumps(whole)), app=sums.app)
    assert found == whole
    assert [isinstance(one, (chain, group, chord)) for one in (found.tasks[0], found.tasks[1])] == [False, True]


@pytest.mark.parametrize("form", ["json", "pickle", "deepcopy"])
def test_a_canvas_survives_being_stored(sums: Sums, form: str) -> None:
    whole = chord([sums.add.s(1, 2), sums.add.s(3) | sums.add.s(4)], sums.total.s()) | sums.add.s(5)
    if form == "json":
        again = signature(json.loads(json.dumps(whole)), app=sums.app)
    else:
        again = pickle.loads(pickle.dumps(whole)) if form == "pickle" else copy.deepcopy(whole)
    again._app = sums.app

    assert type(again) is type(whole)
    assert repr(again) == repr(whole)
    with pytest.raises(ValueError, match="nonesuch"):
        signature({"task": "x", "subtask_type": "nonesuch"})


CANVASES = {
    "chain": (lambda t: t.add.s(1, 2) | t.add.s(3) | t.add.s(4), 10),
    "chain of one": (lambda t: chain(t.add.s(1, 2)), 3),
    "nested chains": (lambda t: chain(t.add.s(1, 2), chain(t.add.s(3), chain(t.add.s(4)))), 10),
    "group": (lambda t: group(t.add.s(n, n) for n in range(4)), [0, 2, 4, 6]),
    "nested groups": (lambda t: group(t.add.s(1, 1), group(t.add.s(2, 2), group(t.add.s(3, 3)))), [2, 4, 6]),
    "chord": (lambda t: chord([t.add.s(n, n) for n in range(4)], t.total.s()), 12),
    "chord of one": (lambda t: chord([t.add.s(2, 2)], t.total.s()), 4),
    "chord without a header": (lambda t: chord([], t.total.s()), 0),
    "chord, then tasks": (lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | t.total.s() | t.add.s(1) | t.add.s(1), 8),
    "task, then group": (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)), [3, 4]),
    "task, chord, task": (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.total.s() | t.add.s(10), 17),
    "two chords": (
        lambda t: chain(t.add.s(1, 1), *[group(t.add.s(1), t.add.s(2)), t.total.s()] * 2), 17,
    ),
    "group, then group": (lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | group(t.total.s(), t.total.s()), [6, 6]),
    "chains in a header": (lambda t: chord([t.add.s(1, 1) | t.add.s(2), t.add.s(3, 3) | t.add.s(4)], t.total.s()), 14),
    "a chord in a header": (
        lambda t: chord([chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()), t.add.s(3, 3)], t.total.s()), 12,
    ),
    "a group at the end of a chain in a header": (
        lambda t: chord([t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)), t.add.s(3, 3)], t.add.s([])), [[3, 4], 6],
    ),
    "immutable": (lambda t: t.add.s(1, 1) | t.add.si(5, 5) | t.add.s(1), 11),
    "map": (lambda t: t.total.map([[1, 2], [3, 4]]), [3, 7]),
    "starmap": (lambda t: t.add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "chunks": (lambda t: t.add.chunks([(n, n) for n in range(5)], 2), [[0, 2], [4, 6], [8]]),
    "chunks in a chord": (lambda t: chord(chunks(t.add.s(), [(1, 1), (2, 2), (3, 3)], 2), t.add.s([])), [[2, 4], [6]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CANVASES)
def test_what_comes_of_it(sums: Sums, name: str) -> None:
    build, expected = CANVASES[name]

    assert sums.run(build(sums)).get(timeout=1) == expected


@pytest.mark.parametrize("name", CANVASES)
def test_the_caller_may_run_it_himself(name: str) -> None:
    sums = Sums(always_eager=True)
    build, expected = CANVASES[name]
    value = build(sums).apply_async().get()
    if name == "a group at the end of a chain in a header":
        expected = [[3, 4], 6]

    assert value == expected
    assert sums.published == []


def test_arguments_and_options_of_the_caller_reach_the_first_task(sums: Sums) -> None:
    result = (sums.add.s(1) | sums.add.s(2)).apply_async((10,), headers={"tenant": "a"}, task_id="last")
    _, first, _ = sums.published[0]
    sums.work()

    assert (first.headers, first.chain[0]["options"]["task_id"]) == ({"tenant": "a"}, "last")
    assert (result.id, result.get(timeout=1)) == ("last", 13)
    assert result.parent.get(timeout=1) == 11
    assert sums.run(group(sums.add.s(1), sums.add.s(2)), 10).get(timeout=1) == [11, 12]
    assert sums.run(chord([sums.add.s(1), sums.add.s(2)], sums.total.s()), 10).get(timeout=1) == 23


def test_every_message_of_a_flow_has_its_root_and_its_parent(sums: Sums) -> None:
    sums.run(sums.add.s(1, 1) | group(sums.add.s(1), sums.add.s(2)) | sums.total.s() | sums.add.s(1))
    messages = [message for _, message, _ in sums.published]
    root = messages[0].id

    assert [message.task for message in messages] == ["add", "add", "add", "total", "add"]
    assert {message.root_id for message in messages} == {root}
    assert messages[1].parent_id == messages[2].parent_id == root
    assert messages[3].parent_id == messages[2].id, "who counted the last end sent the body"
    assert messages[1].group == messages[2].group
    assert messages[1].group != messages[3].group
    assert [message.group_index for message in messages[1:3]] == [0, 1]


def test_a_frozen_canvas_gets_the_ids_that_it_was_frozen_with(sums: Sums) -> None:
    whole = sums.add.s(1, 1) | sums.add.s(2)
    frozen = whole.freeze()
    sent = sums.run(whole)

    assert sent.id == frozen.id
    assert sent.parent.id == frozen.parent.id
    assert frozen.get(timeout=1) == 4


def test_callbacks_and_errbacks_of_a_chain_are_those_of_its_last_and_of_each_step(sums: Sums) -> None:
    whole = sums.add.s(1, 1) | sums.add.s(2)
    whole.link(sums.note.s("done"))
    failed = sums.task(name="failed")(lambda task_id: sums.notes.append([task_id, "failed"]))
    whole.link_error(failed.s())
    sums.run(whole)
    broken = sums.add.s(1, 1) | sums.fail.s() | sums.add.s(2)
    result = sums.run(broken, link_error=failed.s())

    assert sums.notes == [[4, "done"], [result.parent.id, "failed"]]


def test_what_is_kept_of_a_result_that_a_task_returns_is_which_one_it_is(sums: Sums) -> None:
    sent: list[Any] = []

    @sums.task(name="sends")
    def sends() -> Any:
        sent.append(group(sums.add.s(1, 1), sums.add.s(2, 2)).apply_async())
        return sent[0]

    result = sums.run(sends.s())

    assert result.get(timeout=1) == [[sent[0].id, None], [[[one.id, None], None] for one in sent[0]]]


def test_a_failed_step_fails_all_that_would_have_followed(sums: Sums) -> None:
    whole = sums.fail.s() | sums.add.s(1) | group(sums.add.s(2), sums.add.s(3)) | sums.total.s()
    result = sums.run(whole)

    with pytest.raises(ValueError, match="no"):
        result.get(timeout=1)
    assert [one.state for one in result.parent.results] == ["FAILURE", "FAILURE"]


@pytest.mark.parametrize("header", ["a task", "a step of a chain", "a chord"])
def test_a_chord_with_a_failed_header_fails_its_body_and_what_follows_and_hangs_nobody(sums: Sums, header: str) -> None:
    member = {
        "a task": sums.fail.s(),
        "a step of a chain": sums.fail.s() | sums.add.s(1),
        "a chord": chord([sums.fail.s(), sums.add.s(1, 1)], sums.total.s()),
    }[header]
    body = sums.total.s() | sums.add.s(1)
    body.link_error(sums.note.s("failed"))
    result = sums.run(chord([sums.add.s(1, 1), member], body))

    first = ChordError if header == "a chord" else ValueError  # what failed first says more than what followed
    with pytest.raises(first, match="no"):
        result.get(timeout=1)
    assert isinstance(result.result, ChordError)
    assert [note[-1] for note in sums.notes] == ["failed"]


def test_a_member_whose_message_is_parked_fails_its_chord(sums: Sums) -> None:
    sums.total.typing = False  # as at a sender that does not know the function
    result = chord([sums.add.s(1, 1), sums.total.s()], sums.total.s()).apply_async()
    sums.total.typing = True
    outcomes = sums.work()

    assert [outcome.reason for outcome in outcomes if isinstance(outcome, DeadLetter)] == ["bad-arguments"]
    with pytest.raises(TypeError, match="total"):
        result.get(timeout=1)
    assert isinstance(result.result, ChordError)


def test_a_body_that_cannot_be_sent_fails_and_leaves_its_members_their_results(sums: Sums) -> None:
    result = sums.run(chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.add.si()))  # without the argument that it needs

    with pytest.raises(ChordError, match=r"Callback error.*missing"):
        result.get(timeout=1)
    assert result.parent.get(timeout=1) == [2, 4]


def test_a_header_counts_although_its_results_are_ignored(sums: Sums) -> None:
    quiet = sums.task(name="quiet", ignore_result=True)(lambda n: n)

    assert sums.run(chord([quiet.s(1), quiet.s(2)], sums.total.s())).get(timeout=1) == 3


def test_a_repeated_member_counts_once(sums: Sums) -> None:
    result = chord([sums.add.s(1, 1), sums.add.s(2, 2), sums.add.s(3, 3)], sums.total.s()).apply_async()
    repeated = sums.published[0][1]
    sums.app.publish_to(sums.published[0][0], repeated)
    sums.work()

    assert result.get(timeout=1) == 12
    assert [message.task for _, message, _ in sums.published].count("total") == 1


def test_what_a_task_sends_is_its_child(sums: Sums) -> None:
    spread = sums.task(name="spread")(lambda: group(sums.add.s(1, 1), sums.add.s(2, 2)).delay().id)
    result = sums.run(spread.s())
    (child,) = result.children

    assert child.id == result.get(timeout=1)
    assert child.get(timeout=1) == [2, 4]


def test_a_chord_needs_results_that_can_be_counted() -> None:
    sums = Sums()
    sums.app._result_backend = None
    sums.app.configure(sums.settings.__class__(result_backend="rpc://"))

    with pytest.raises(Exception, match="cannot count the tasks of a chord"):
        chord([sums.add.s(1, 1)], sums.total.s()).apply_async()
    sums.app.close()


def test_a_task_with_its_own_way_of_being_sent_keeps_it_in_a_canvas(sums: Sums) -> None:
    from lightbus.compat import Task

    class Marked(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, *others: Any, **options: Any) -> Any:
            return super().apply_async(args, kwargs, *others, **options, headers={"marked": True})

    marked = sums.task(name="marked", base=Marked)(lambda n: n)
    sums.run(group(marked.s(1), marked.s(2)))

    assert [message.headers for _, message, _ in sums.published] == [{"marked": True}] * 2


def test_a_group_has_no_end_of_its_own(sums: Sums) -> None:
    with pytest.raises(TypeError, match="chord"):
        group(sums.add.s(1, 1)).apply_async(link=sums.note.s())


def test_results_of_a_group_can_be_looked_at_one_by_one(sums: Sums) -> None:
    result = group(sums.add.s(1, 1), sums.fail.s()).apply_async()
    assert (result.ready(), result.completed_count(), len(result)) == (False, 0, 2)
    sums.work()

    assert (result.ready(), result.successful(), result.failed(), result.completed_count()) == (True, False, True, 1)
    assert [repr(value) for value in result.get(propagate=False)] == ["2", "ValueError('no', 7)"]
    with pytest.raises(ValueError, match="no"):
        result.join()
    assert list(group(sums.add.s(1, 1)).apply_async().results[0:0]) == []
    assert Group(sums.add.s(1), sums.add.s(2)).tasks[1].args == (2,)
