"""Calls on a schedule, and `lightbus schedule edit`, `next`, `explain` and `backfill`, on the embedded broker."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result

from lightbus.cli.schedule import schedule
from lightbus.core.topology import EVENTS_EXCHANGE, Binding, Exchange, Queue, Topology
from lightbus.drivers import open_transport
from lightbus_scheduler import Cron, parse
from tests.cli.conftest import BUS, CONTRACTS, Project

UNSERVED = """

class Nobody(Api, name="{prefix}.nobody", version="1.0"):
    @rpc(timeout_seconds=0.3)
    def ask(self) -> str:
        raise NotImplementedError
"""
CALLS = """
[tool.lightbus.schedule.open]
every_seconds = 0.5
call = "{prefix}.tickets.status"
arguments = {{ id = 7, reader = "ada" }}

[tool.lightbus.schedule.gone]
every_seconds = 0.5
call = "{prefix}.tickets.status"
arguments = {{ id = 404 }}
timeout_seconds = 20

[tool.lightbus.schedule.nobody]
every_seconds = 0.5
call = "{prefix}.nobody.ask"
"""


def test_a_scheduled_call_is_answered_and_its_answer_error_or_silence_is_logged(project: Project, prefix: str) -> None:
    project.write("contracts.py", (CONTRACTS + UNSERVED).format(prefix=prefix))
    project.write("pyproject.toml", CALLS.format(prefix=prefix).replace("id = 7", 'id = "seven"'))
    wrong = project.run("beat", "-A", "shop", "--check")
    assert wrong.code == 78
    assert f"arguments of {prefix}.tickets.status cannot be" in wrong.err
    project.write("pyproject.toml", CALLS.format(prefix=prefix))
    project.worker("-A", "shop", "-c", "1")
    beat = project.start("beat", "-A", "shop", name="beat")
    call = f"call={prefix}.tickets.status"
    beat.wait_for_log('"ticket 7 is open for ada"', 60)
    beat.wait_for_log(f"call failed entry='gone' {call}", 60)
    beat.wait_for_log(f"no answer entry='nobody' call={prefix}.nobody.ask", 60)
    log = beat.read_log()
    assert f"answered entry='open' {call}" in log
    assert "api:NotFound" in log
    assert beat.stop() == 0
    refused = project.run(
        "schedule", "add", "x", "--definition", f'{{"at": "2030-01-01T00:00:00Z", "call": "{prefix}.tickets.stat"}}',
        "-A", "shop",
    )  # fmt: skip
    assert f"did you mean '{prefix}.tickets.status'?" in refused.err


class InProcess:
    """`lightbus schedule` without a process for each command; `app` names a module that no other test has."""

    def __init__(self, app: str) -> None:
        self._app = app

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(schedule, [*arguments, "-A", self._app])

    def out(self, *arguments: str) -> str:
        done = self(*arguments)
        assert (done.exit_code, done.exception) == (0, None), done.output
        return done.stdout


@pytest.fixture
def in_process(empty: Project, prefix: str, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    empty.write(f"{prefix}_contracts.py", CONTRACTS.format(prefix=prefix))
    empty.write(f"{prefix}_shop.py", BUS.format(prefix=prefix).replace("from contracts", f"from {prefix}_contracts"))
    monkeypatch.chdir(empty.folder)
    monkeypatch.syspath_prepend(str(empty.folder))
    monkeypatch.setenv("LIGHTBUS_URL", f"sqlite:///{empty.folder}/bus.db")
    return InProcess(f"{prefix}_shop")


def test_an_entry_that_is_edited_keeps_what_was_decided_and_next_and_backfill_follow(
    in_process: InProcess, empty: Project, prefix: str
) -> None:
    fires = {"event": f"{prefix}.tickets.created", "fields": {"id": 1}}
    monthly = {"cron": "30 3 1 * *", "tz": "Europe/Lisbon", **fires}
    in_process.out("add", "report", "--definition", json.dumps({"every_seconds": 3600, **fires}))
    in_process.out("edit", "report", "--definition", json.dumps(monthly))
    rows = json.loads(in_process.out("ls", "--json"))
    assert [(row["id"], row["schedule"]["cron"], row["source"]) for row in rows] == [("report", "30 3 1 * *", "stored")]
    assert "every_seconds" not in rows[0]["schedule"]
    now = datetime.now(timezone.utc)
    slots = list(islice(Cron(parse("30 3 1 * *"), "Europe/Lisbon").iterate(now), 3))
    listed = json.loads(in_process.out("next", "report", "-n", "3", "--json"))
    assert listed == [{"at": slot.isoformat(), "id": "report", "tz": "Europe/Lisbon"} for slot in slots]
    local = slots[0].astimezone(ZoneInfo("Europe/Lisbon"))
    assert in_process.out("next").splitlines()[0].startswith(local.isoformat(timespec="seconds"))
    in_process.out("pause", "report")
    assert json.loads(in_process.out("next", "--json")) == []

    past = list(islice(Cron(parse("30 3 1 * *"), "Europe/Lisbon").iterate(now - timedelta(days=90)), 2))
    span = ["--after", (past[0] - timedelta(seconds=1)).isoformat(), "--until", past[1].isoformat()]
    expected = [slot.isoformat() for slot in past]
    assert in_process.out("backfill", "report", *span, "--dry-run").splitlines() == expected
    transport = open_transport(f"sqlite:///{empty.folder}/bus.db")
    try:
        listener = Queue(name=f"{prefix}.on.remember")
        events = Exchange(EVENTS_EXCHANGE, "topic")
        transport.declare(Topology((events,), (listener,), (Binding(events.name, "#", listener.name),)))
        assert in_process.out("backfill", "report", *span, "--dry-run").splitlines() == expected
        assert transport.message_count(listener.name) == 0  # a dry run sends nothing
        assert in_process.out("backfill", "report", *span).splitlines() == expected
        assert transport.message_count(listener.name) == 2
    finally:
        transport.close()

    for arguments, words in [
        (("edit", "nobody", "--definition", json.dumps(monthly)), "no schedule entry 'nobody'"),
        (("edit", "report", "--definition", '{"cron": "30 3 32 * *", "task": "x"}'), "32"),
        (("edit", "report", "--definition", "[]"), "--definition"),
        (("backfill", "report", "--after", "yesterday", "--until", expected[0]), "--after cannot be 'yesterday'"),
        (
            ("backfill", "report", "--after", "2000-01-01T00:00:00Z", "--until", "9000-01-01T00:00:00Z"),
            "more than 10,000",
        ),
        (("add", "report", "--definition", json.dumps(monthly)), "there is an entry 'report' already"),
    ]:
        refused = in_process(*arguments)
        assert (refused.exit_code, words in refused.stderr) == (2, True), refused.output


def test_explain_tells_the_firings_in_both_dialects_and_refuses_what_is_no_expression() -> None:
    def explain(*arguments: str) -> Result:
        return CliRunner().invoke(schedule, ["explain", *arguments])

    told = explain("0 3 * * *", "--tz", "Europe/Lisbon", "-n", "2").stdout
    first = Cron("0 3 * * *", "Europe/Lisbon").next_after(datetime.now(timezone.utc))
    assert first is not None
    assert f"= {first:%Y-%m-%d %H:%M:%S} UTC" in told
    assert "the other dialect fires at the same times" in told
    plain = json.loads(explain("0 22-2 * * *", "--dialect", "celery", "--json").stdout)
    assert len(plain["next"]) == 5
    assert any("the other dialect refuses it" in remark for remark in plain["remarks"])
    wrong = explain("0 3 * *")
    assert (wrong.exit_code, "number of fields" in wrong.stderr) == (2, True)
    nowhere = explain("0 3 * * *", "--tz", "Lisbon")
    assert (nowhere.exit_code, "time zone cannot be 'Lisbon'" in nowhere.stderr) == (2, True)
