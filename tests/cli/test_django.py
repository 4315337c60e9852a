"""`lightbus worker` in a Django project: set-up, discovery, and the database connections of its processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import psycopg
import pytest

from tests.brokers import PostgreSQL
from tests.cli.conftest import Project
from tests.processes import wait_for

FILES = {
    "proj/__init__.py": "",
    "proj/settings.py": """
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LIGHTBUS_URL = f"sqlite:///{HERE / 'from-settings.db'}"
""",
    "proj/bus.py": """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

from lightbus.contrib.django import make_bus

bus = make_bus("proj")
""",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models


class Order(models.Model):
    number = models.IntegerField()
""",
    "shop/contracts.py": """
from lightbus import Api, Event


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        number: int
""",
    "shop/listeners.py": """
import os

from django.db import connection
from proj.bus import bus

from lightbus import RetryPolicy
from shop.contracts import Orders
from shop.models import Order

Order.objects.count()  # opens a connection in the process that is going to fork
OPENED_WHILE_IMPORTING = connection.connection


@bus.on(Orders.placed, retry=RetryPolicy(max_retries=0))
def keep(event: Orders.placed) -> None:
    Order.objects.create(number=event.number)
    inherited = connection.connection is OPENED_WHILE_IMPORTING
    print(f"kept {event.number} inherited={inherited} in all {Order.objects.count()}", flush=True)
    connection.connection.close()  # as when the server has gone: Django does not know
""",
    "shop/tasks.py": """
from lightbus.compat import task

from shop.models import Order


@task(name="shop.count")
def count() -> int:
    print(f"counted {Order.objects.count()}", flush=True)
    return 0
""",
}


POSTGRES_SETTINGS = """
INSTALLED_APPS = ["shop"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": "127.0.0.1",
        "PORT": {port}, "CONN_MAX_AGE": {age}, "CONN_HEALTH_CHECKS": {checks},
    }}
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
BACKENDS = "from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    """Not in pytest's folder, which its user could not reach."""
    folder = Path(tempfile.mkdtemp(prefix="lightbus-postgres-"))
    server = PostgreSQL(folder)
    with server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture
def django_project(empty: Project) -> Project:
    for name, text in FILES.items():
        empty.write(name, text)
    migrate(empty)
    return empty


def migrate(project: Project) -> None:
    migrated = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"],
        cwd=project.folder, env=os.environ | {"DJANGO_SETTINGS_MODULE": "proj.settings", "PYTHONPATH": "."},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert migrated.returncode == 0, migrated.stderr


@pytest.mark.parametrize("age, checks", [(0, False), (None, True)], ids=["one per message", "kept"])
def test_a_message_after_the_database_has_ended_its_connections_is_handled_at_once(
    empty: Project, postgres: PostgreSQL, age: int | None, checks: bool
) -> None:
    files = FILES | {"proj/settings.py": POSTGRES_SETTINGS.format(port=postgres.port, age=age, checks=checks)}
    for name, text in files.items():
        empty.write(name, text.replace("    connection.connection.close()", "    # "))
    migrate(empty)
    worker = empty.worker("-A", "proj", "-c", "1")
    with psycopg.connect(postgres.url, autocommit=True) as connection:

        def connected() -> int:
            found = connection.execute(f"select count(*) {BACKENDS}").fetchone()
            assert found is not None
            return int(found[0])

        assert connected() == 0, "what importing opened is closed before the fork"
        for number in (1, 2, 3):
            assert empty.run("fire", "shop.orders.placed", f"number={number}", "-A", "proj").code == 0
            wait_for(lambda done=number: worker.read_log().count("outcome=") == done, 15, "a message", [worker.log])
            wait_for(lambda: connected() == (0 if age == 0 else 1), 10, "the worker's connections", [worker.log])
            connection.execute(f"select pg_terminate_backend(pid) {BACKENDS}")
            wait_for(lambda: connected() == 0, 10, "the server to end them")
        connection.execute("delete from shop_order")

    assert worker.read_log().count("attempt=1") == worker.read_log().count("outcome=ok") == 3
    assert worker.stop() == 0


def test_a_worker_finds_what_installed_apps_declare_and_survives_broken_connections(django_project: Project) -> None:
    worker = django_project.worker("-A", "proj", "-c", "1")
    for number in (1, 2, 3):
        fired = django_project.run("fire", "shop.orders.placed", f"number={number}", "-A", "proj")
        assert fired.code == 0, fired.err
        worker.wait_for_log(f"kept {number} inherited=False in all {number}")
    sent = django_project.run("send", "shop.count", "-A", "proj")
    assert sent.code == 0, sent.err
    log = worker.wait_for_log("counted 3")

    assert "from-settings.db" in log
    assert "tasks: shop.count" in log
    assert worker.stop() == 0
    assert worker.read_log().count("outcome=ok") == 4


def test_the_settings_may_come_from_the_environment(django_project: Project) -> None:
    django_project.environment["DJANGO_SETTINGS_MODULE"] = "proj.settings"
    django_project.write("proj/bus.py", "from lightbus.contrib.django import make_bus\n\nbus = make_bus('proj')\n")
    worker = django_project.worker("-A", "proj", "-c", "1")

    assert "proj.on.keep" in worker.read_log()
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "path, text, said",
    [
        ("proj/settings.py", "1 / 0", "Django cannot be set up: ZeroDivisionError: division by zero (*settings.py*"),
        ("shop/listeners.py", "import nothing", "a module of Django's installed apps cannot be imported: *nothing*"),
        ("proj/settings.py", "LIGHTBUS_URL = 5", "*LIGHTBUS_URL must be a text, got 5*"),
    ],
    ids=["settings", "app module", "url"],
)
def test_what_is_wrong_with_the_project_is_said_in_one_sentence(
    django_project: Project, path: str, text: str, said: str
) -> None:
    django_project.write(path, text)
    django_project.environment["DJANGO_SETTINGS_MODULE"] = "proj.settings"
    ended = django_project.run("worker", "-A", "proj", "-c", "1")

    assert ended.code == 78
    assert fnmatch(ended.sentence, said.replace("[", "[[]")), ended.sentence


def test_a_forked_process_never_uses_the_connection_of_the_one_before() -> None:
    script = """
import os
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
from lightbus.contrib.django import set_up
set_up()
from django.db import connection
connection.ensure_connection()
opened = connection.connection
pid = os.fork()
if pid == 0:
    assert connection.connection is None
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    os._exit(0 if connection.connection is not opened else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert connection.connection is opened
opened.execute("select 1")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
