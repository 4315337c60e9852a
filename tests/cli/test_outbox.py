"""`lightbus outbox` and `lightbus worker --relay-outbox`, in a project with SQLAlchemy and in one with Django."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from tests.brokers import free_port
from tests.cli.conftest import Ended, Project
from tests.processes import wait_for

SHOP = """
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from lightbus import Api, Bus, Event
from lightbus.contrib.outbox.sqlalchemy import Outbox


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        id: int


engine = create_engine("sqlite:///shop.db")
bus = Bus("shop")
outbox = Outbox(bus, engine)
"""
FIRE = """
from shop import Orders, Session, engine, outbox

outbox.metadata.create_all(engine)
with Session(engine) as session, session.begin():
    for number in (1, 2, 3):
        print(outbox.fire(session, Orders.placed(id=number)))
"""


@pytest.fixture
def shop(empty: Project) -> Project:
    empty.write("shop.py", SHOP)
    empty.write("fire.py", FIRE)
    return empty


#: Commands one after the other in one process, which starts once.
RUN_ALL = """
import contextlib
import io
import json
import sys

from lightbus.cli.__main__ import main

results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["lightbus", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def run_all(project: Project, *commands: tuple[str, ...]) -> list[Ended]:
    done = project.python("-c", RUN_ALL, json.dumps(commands))
    assert done.code == 0, done.err
    return [Ended(*result) for result in json.loads(done.out)]


def test_rows_are_shown_published_tried_again_and_discarded(shop: Project) -> None:
    fired = shop.python("fire.py")
    assert fired.code == 0, fired.err
    first, bad, last = fired.out.split()
    with create_engine(f"sqlite:///{shop.folder / 'shop.db'}").begin() as connection:
        connection.execute(text("update lightbus_outbox set properties = '{' where message_id = :id"), {"id": bad})
        connection.execute(text("update lightbus_outbox set written_at = written_at - 3600"))

    stale, listed, relayed, examined, in_words, shown, unsaid, retried, again, asked, discarded, gone = run_all(
        shop,
        ("doctor", "-A", "shop", "--json"),
        ("outbox", "ls", "-A", "shop", "--json"),
        ("outbox", "relay", "-A", "shop", "--once"),
        ("doctor", "-A", "shop", "--json"),
        ("outbox", "ls", "-A", "shop"),
        ("outbox", "show", bad[:10], "-A", "shop", "--json"),
        ("outbox", "retry", "-A", "shop"),
        ("outbox", "retry", "--aside", "-A", "shop"),
        ("outbox", "ls", "-A", "shop", "--json"),
        ("outbox", "discard", bad, "-A", "shop"),
        ("outbox", "discard", bad, "--yes", "-A", "shop"),
        ("outbox", "show", bad, "-A", "shop"),
    )

    assert any("3 messages wait in the outbox" in finding for finding in stale.json()["findings"])
    assert any("1 messages of the outbox" in finding for finding in examined.json()["findings"])
    (document,) = listed.json()
    assert (document["outbox"], document["app"]) == ("lightbus_outbox", "shop")
    assert (document["waiting"], document["aside"]) == (3, 0)
    assert [row["id"] for row in document["messages"]] == [first, bad, last]
    assert {row["state"] for row in document["messages"]} == {"waiting"}
    assert "published 2" in relayed.err
    assert f"id={bad} name=shop.orders.placed set aside: DecodeError" in relayed.err
    assert in_words.out.splitlines()[0].startswith(f"{bad}  ")
    assert in_words.out.splitlines()[1].endswith("of shop: 0 waiting, the oldest for 0 s; 1 set aside")
    (row,) = shown.json()
    assert (row["payload"], row["properties"], row["routing_key"]) == ({"id": 2}, "{", "shop.orders.placed.v1")
    assert unsaid.code == 2
    assert unsaid.sentence.startswith("say which: an ID, or --aside")
    assert retried.out == "1 to be tried again\n"
    assert [row["state"] for row in again.json()[0]["messages"]] == ["waiting"]
    assert asked.code != 0, "nobody said yes"
    assert discarded.out == "discarded 1\n"
    assert (gone.code, gone.err) == (1, "no row of an outbox meets this\n")


def test_a_relay_runs_until_stopped_and_shows_its_lag(shop: Project) -> None:
    assert shop.python("fire.py").code == 0
    port = free_port()
    relay = shop.start("outbox", "relay", "-A", "shop", "--http", f":{port}", name="relay")
    relay.wait_for_log("lightbus outbox relay ready", 60)

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return str(page.read().decode())

    wait_for(
        lambda: 'lightbus_outbox_relayed_total{outbox="lightbus_outbox",outcome="sent"} 3.0' in metrics(), 30,
        "three messages in the metrics", [relay.log],
    )  # fmt: skip
    for name in ("waiting", "lag_seconds", "aside"):
        assert f'lightbus_outbox_{name}{{outbox="lightbus_outbox"}} ' in metrics()
    assert relay.stop(60) == 0
    assert json.loads(shop.run("outbox", "ls", "-A", "shop", "--json").out)[0]["waiting"] == 0


def test_an_app_without_an_outbox_is_said_in_one_sentence(shop: Project) -> None:
    shop.write("plain.py", SHOP.replace("outbox = ", "# ") + "bus.on(Orders.placed)(print)\n")
    for ended in run_all(
        shop,
        ("outbox", "relay", "-A", "plain"),
        ("outbox", "ls", "-A", "plain"),
        ("worker", "-A", "plain", "--relay-outbox", "--check"),
    ):
        assert ended.code == 78
        assert ended.sentence.startswith("this app has no outbox: make one beside its bus")


DJANGO = {
    "proj/__init__.py": "",
    "proj/settings.py": """
INSTALLED_APPS = ["lightbus.contrib.outbox.django", "orders"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql", "NAME": {name!r}, "USER": {user!r}, "HOST": {host!r}, "PORT": {port},
    }}
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
    "proj/bus.py": """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

from lightbus.contrib.django import make_bus
from lightbus.contrib.outbox.django import Outbox

bus = make_bus("proj")
outbox = Outbox(bus)
""",
    "orders/__init__.py": "",
    "orders/models.py": """
from django.db import models


class Order(models.Model):
    number = models.IntegerField()
""",
    "orders/listeners.py": """
from django.db import transaction
from proj.bus import bus, outbox

from lightbus import Api, DeclarationError, Event
from orders.models import Order


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        number: int


@bus.on(Orders.placed)
def keep(event: Orders.placed) -> None:
    try:
        outbox.is_new()
    except DeclarationError as error:
        print(f"refused: {error}", flush=True)
    with transaction.atomic():
        is_new = outbox.is_new()
        if is_new:
            Order.objects.create(number=event.number)
    print(f"heard {event.number} new={is_new} in all {Order.objects.count()}", flush=True)
""",
    "orders/tasks.py": """
from lightbus.compat import task


@task(name="orders.print")
def print_order(number: int) -> None:
    print(f"printed {number}", flush=True)
""",
    "use.py": """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
import django

django.setup()
from django.db import connection, transaction
from orders.listeners import Orders
from orders.tasks import print_order
from proj.bus import outbox

with transaction.atomic():
    outbox.fire(Orders.placed(number=1))
    try:
        with transaction.atomic():
            outbox.fire(Orders.placed(number=2))
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    outbox.send(print_order, number=7)
    try:
        outbox.fire(Orders.placed(number="x"))
    except Exception as error:
        print(type(error).__name__)
with connection.cursor() as cursor:
    cursor.execute("select string_agg(name, ' ' order by id) from lightbus_outbox")
    print(cursor.fetchone()[0])
    columns = "transaction_id, attempts, next_at, error, aside, message_id, kind, name, exchange, routing_key, "
    columns += "properties, body, visible_at, written_at"
    copy = f"select {columns} from lightbus_outbox where kind = 'event'"
    cursor.execute(f"insert into lightbus_outbox ({columns}) {copy}")
outbox.fire(Orders.placed(number=3), delay_seconds=0.5, expires_seconds=600)  # outside of a transaction
""",
}


def test_a_django_project_fires_sends_and_handles_once(empty: Project, postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    for name, content in DJANGO.items():
        empty.write(name, content)
    empty.write("proj/settings.py", DJANGO["proj/settings.py"].format(
        name=parts.path[1:], user=parts.username, host=parts.hostname, port=parts.port))  # fmt: skip
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "proj.settings", "PYTHONPATH": "."}
    for command in (["migrate", "--run-syncdb", "--verbosity", "0"], ["makemigrations", "--check", "lightbus_outbox"]):
        done = subprocess.run(
            [sys.executable, "-m", "django", *command], cwd=empty.folder, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    used = empty.python("use.py")
    assert (used.code, used.out) == (0, "BadArguments\nshop.orders.placed orders.print\n"), used.err

    worker = empty.worker("-A", "proj", "-c", "2", "--relay-outbox")
    wait_for(lambda: worker.read_log().count("heard ") == 3, 60, "three deliveries", [worker.log])
    worker.wait_for_log("printed 7", 60)
    log = worker.read_log()
    assert sorted(line.split(" in all")[0] for line in log.splitlines() if line.startswith("heard")) == [
        "heard 1 new=False", "heard 1 new=True", "heard 3 new=True",
    ]  # fmt: skip
    assert log.count("refused: is_new() needs a transaction") == 3
    assert worker.stop(60) == 0
    (listed,) = empty.run("outbox", "ls", "-A", "proj", "--json").json()
    assert (listed["waiting"], listed["aside"]) == (0, 0)
