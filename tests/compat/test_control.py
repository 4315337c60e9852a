"""`app.control` and the commands of a Lightbus worker's node beside Celery's: names, signatures, queues."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import celery
import pytest
from celery.app import control as celerys
from celery.app.defaults import DEFAULTS
from celery.worker.control import Panel

from lightbus.cli.apps import LoadedApp
from lightbus.cli.celery_flags import CeleryFlags
from lightbus.cli.remote import remote_control
from lightbus.compat import Settings, TaskApp
from lightbus.compat.bridge import settings_from
from lightbus.compat.control import Control, Inspect
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.compat.remote import statedb
from lightbus.compat.remote.commands import commands
from lightbus.compat.remote.mailbox import open_mailbox
from lightbus.compat.remote.revokes import Revokes
from lightbus.worker import rates_of

_IN_NEW = ("control_queue_durable",)
#: Settings of Celery's control queues; the last is not in all versions.
QUEUES: list[dict[str, Any]] = [
    {},
    {"control_exchange": "steering", "control_queue_ttl": 60.0, "control_queue_expires": 30.0},
    *(
        [{"control_queue_durable": True, "control_queue_exclusive": False}]
        if "control_queue_durable" in DEFAULTS
        else []
    ),
]


def public(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: value for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}


def names_of(method: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(method).parameters.values()
    return [one.name for one in parameters if one.kind != one.VAR_KEYWORD]


@pytest.mark.parametrize("ours, theirs", [(Control, celerys.Control), (Inspect, celerys.Inspect)])
def test_the_callers_side_has_celerys_methods_and_arguments(ours: type, theirs: type) -> None:
    methods = {name: one for name, one in public(theirs).items() if name != "Mailbox"}
    assert set(methods) <= set(public(ours))
    for name, method in methods.items():
        wanted = [one for one in inspect.signature(method).parameters.values() if one.kind != one.VAR_KEYWORD]
        found = inspect.signature(public(ours)[name]).parameters
        assert [one.name for one in wanted] == [
            name for name in found if found[name].kind != inspect.Parameter.VAR_KEYWORD
        ]


def test_inspect_is_made_with_celerys_arguments() -> None:
    wanted = set(inspect.signature(celerys.Inspect.__init__).parameters)
    assert wanted == set(inspect.signature(Control.inspect).parameters)


def test_a_node_knows_every_command_of_celerys_worker() -> None:
    assert set(Panel.data) <= set(commands())


@pytest.mark.parametrize("conf", QUEUES, ids=["default", "named", "durable"][: len(QUEUES)])
def test_the_queues_of_a_node_and_of_its_callers_are_celerys(conf: dict[str, Any], memory_url: str) -> None:
    celery_app = celery.Celery("project", broker=memory_url, set_as_current=False)
    celery_app.conf.update(conf)
    app = TaskApp(settings_from(celery_app))
    ours, theirs = open_mailbox(app), celery_app.control.mailbox

    assert ours.get_queue("node@host").as_dict(recurse=True) == theirs.get_queue("node@host").as_dict(recurse=True)
    replies = [one.get_reply_queue().as_dict(recurse=True) for one in (ours, theirs)]
    for reply in replies:
        reply.update(name="", routing_key="")  # a random id
    assert replies[0] == replies[1]
    app.close()


def test_a_control_can_be_replaced_for_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sent = TaskApp(Settings()), []
    monkeypatch.setattr(app.control, "broadcast", lambda *command, **options: sent.append((command, options)))

    app.AsyncResult("id").revoke(terminate=True)

    about = {"task_id": "id", "terminate": True, "signal": None}
    assert sent == [(("revoke", about, None), {"connection": None, "reply": False, "timeout": None})]


def served(app: TaskApp) -> LoadedApp:
    """As a worker has loaded it."""
    app.task(name="t")(lambda: None)
    app.bus.add_endpoint(TaskEndpoint(app))
    return LoadedApp(task_app=app)


def test_a_worker_has_no_node_where_remote_control_is_switched_off(sqlite_url: str) -> None:
    for on in (True, False):
        app = TaskApp(Settings.from_mapping({"broker_url": sqlite_url, "worker_enable_remote_control": on}))
        remote = remote_control(served(app), [app.bus], rates_of([app.bus]), CeleryFlags())

        assert remote is not None
        assert (remote.attendant is not None) is on
        app.close()


def test_the_settings_name_the_file_of_revokes_beside_celerys(sqlite_url: str, tmp_path: Path) -> None:
    revokes = Revokes()
    revokes.add(["kept"])
    statedb.save(tmp_path / "state.lightbus", revokes)
    (tmp_path / "state").write_bytes(b"a file of Celery's own")
    app = TaskApp(Settings.from_mapping({"broker_url": sqlite_url, "worker_state_db": str(tmp_path / "state")}))
    remote_control(served(app), [app.bus], rates_of([app.bus]), CeleryFlags())

    assert "kept" in app.revokes
    app.close()
