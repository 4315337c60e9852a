"""`lightbus dead` in a project, against what a worker parked."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Project


@pytest.fixture
def parked(project: Project, prefix: str) -> Project:
    """Two dead letters of `<prefix>.tickets.created`: ids 1 and 2, of a listener that refuses all but id 3."""
    text = (project.folder / "shop.py").read_text()
    text = text.replace("from lightbus import Bus", "from lightbus import Bus, RetryPolicy")
    text = text.replace("@bus.on(Tickets.created)", "@bus.on(Tickets.created, retry=RetryPolicy(max_retries=0))")
    text = text.replace(
        '    print(f"heard', '    if event.id < 3:\n        raise ValueError(event.id)\n    print(f"heard'
    )
    project.write("shop.py", text)
    worker = project.worker("-A", "shop", "-c", "1")
    for number in (1, 2):
        assert project.run("fire", f"{prefix}.tickets.created", f"id={number}", "-A", "shop").code == 0
        worker.wait_for_log(f"error=ValueError: {number} kept_in=")
    return project


def test_dead_letters_are_counted_shown_edited_and_discarded(parked: Project, prefix: str) -> None:
    counted = parked.run("dead", "ls", "-A", "shop")
    assert counted.out.splitlines() == [
        f"     2  {prefix}.on.remember  {prefix}.tickets.created  handler-failed  ValueError: 2",
        "2 in 'lightbus.dead'",
    ]
    listed = parked.run("dead", "ls", "--each", "--error", "ValueError: 1", "--json", "-A", "shop").json()
    (group,), (message,) = listed["groups"], listed["messages"]
    assert (group["count"], group["error_class"], group["ids"]) == (1, "ValueError", [message["id"]])
    assert message["replays"] == 0

    (shown,) = parked.run("dead", "show", message["id"], "--json", "-A", "shop").json()
    assert (shown["payload"]["id"], shown["attempts"], shown["source"]) == (1, 1, prefix)
    assert shown["headers"]["lightbus_dead_queue"] == f"{prefix}.on.remember"
    assert "ValueError: 1" in parked.run("dead", "show", message["id"], "-A", "shop").out

    edited = parked.run("dead", "replay", message["id"], "--data", '{"id": 3}', "--json", "-A", "shop")
    assert edited.json() == {"replayed": 1, "kept": []}
    refused = parked.run("dead", "discard", "--all", "-A", "shop")  # nobody is there to say yes
    assert refused.code != 0
    assert parked.run("dead", "ls", "--json", "-A", "shop").json()["count"] == 1
    assert parked.run("dead", "discard", "--all", "--yes", "-A", "shop").out == "discarded 1\n"
    assert parked.run("dead", "ls", "--json", "-A", "shop").json() == {
        "dead_queue": "lightbus.dead", "count": 0, "groups": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["replay"], "say which"),
        (["discard"], "say which"),
        (["replay", "--all", "--data", "{}"], "exactly one message, and no dead letter"),
        (["replay", "m", "--data", "{}", "--edit"], "not both"),
        (["replay", "m", "--to", "a b"], "not a usable name"),
        (["show"], "ID"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Project, arguments: list[str], sentence: str) -> None:
    ended = project.run("dead", *arguments)

    assert ended.code == 2
    assert sentence in ended.sentence


def test_there_is_nothing_to_replay_or_show_on_an_empty_broker(project: Project) -> None:
    for arguments in (["replay", "--all"], ["show", "m"], ["discard", "m", "--yes"]):
        assert project.run("dead", *arguments).code == 1
