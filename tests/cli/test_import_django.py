"""What stands in django-celery-beat's tables goes on in Lightbus's schedule where its own beat would run it next."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import lightbus.compat  # noqa: F401 - the project's beat needs it: where it is absent, this file is left out
from tests.cli.conftest import Project

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
TIME_ZONE = "Europe/Lisbon"
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""
PROJECT = """
import os
from datetime import timedelta

import lightbus.drivers.sqlite
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
app = Celery("proj", broker=os.environ["BROKER"])
app.conf.timezone = "Europe/Lisbon"
app.conf.beat_schedule = {"of-code": {"task": "proj.none", "schedule": timedelta(hours=1)}}


@app.task(name="proj.none")
def none(*args, **kwargs):
    pass
"""
#: Fills the tables, and prints when django-celery-beat itself would run each entry next, in seconds from `now`.
FILL = """
import json
from datetime import datetime, timedelta, timezone

import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import *
from django_celery_beat.schedulers import ModelEntry
from proj import app

now = datetime.now(timezone.utc)
hour = IntervalSchedule.objects.create(every=1, period="hours")
nightly = CrontabSchedule.objects.create(minute="30", hour="3", timezone="America/New_York")
listed = CrontabSchedule.objects.create(minute="0, 30", hour="*", day_of_week="mon-fri", timezone="Europe/Lisbon")
sunset = SolarSchedule.objects.create(event="sunset", latitude="38.72", longitude="-9.14")
ahead = ClockedSchedule.objects.create(clocked_time=now + timedelta(hours=5))
past = ClockedSchedule.objects.create(clocked_time=now - timedelta(hours=5))
tiny = IntervalSchedule.objects.create(every=5, period="microseconds")


def put(name, last_run_minutes=None, **values):
    row = PeriodicTask.objects.create(name=name, task="proj.none", **values)
    if last_run_minutes is not None:
        PeriodicTask.objects.filter(pk=row.pk).update(last_run_at=now - timedelta(minutes=last_run_minutes))


put("hourly", 20, interval=hour, args='["a", 1]', kwargs='{"b": 2}', queue="low", priority=3, expire_seconds=60,
    headers='{"who": "me"}')
put("hourly-overdue", 290, interval=hour)
put("hourly-new", interval=hour)
put("of-code", 45, interval=hour)
put("nightly", 60, crontab=nightly)
put("listed", 1, crontab=listed)
put("sunset", 1, solar=sunset)
put("once", clocked=ahead, one_off=True)
put("once-missed", clocked=past, one_off=True)
put("once-run", clocked=past, one_off=True, total_run_count=1)
put("off", interval=hour, enabled=False)
put("tiny", 1, interval=tiny)
put("later", interval=hour, start_time=now + timedelta(hours=3))
put("ends", 5, interval=hour, expires=now + timedelta(minutes=30))
due = {}
for row in PeriodicTask.objects.filter(enabled=True):
    if row.name not in ("tiny", "once-run"):
        due[row.name] = ModelEntry(row, app=app).is_due()

# In this process, as each command would need a second to load Django and Celery.
from click.testing import CliRunner
from lightbus.cli.schedule import schedule


def run(*arguments):
    done = CliRunner().invoke(schedule, [*arguments, "-A", "proj"], standalone_mode=False)
    assert done.exception is None, done.output
    return done


def bring(*options):
    done = run("import-django", *options)
    return [done.return_value, done.stdout, done.stderr]


print(json.dumps({
    "now": now.isoformat(), "due": {name: [one.is_due, one.next] for name, one in due.items()},
    "dry": bring("--dry-run"), "done": bring(), "rows": json.loads(run("ls", "--json").stdout), "again": bring(),
}))
"""


def test_every_entry_goes_on_where_django_celery_beat_would_have_run_it_next(empty: Project) -> None:
    empty.write("site_settings.py", SETTINGS)
    empty.write("proj.py", PROJECT)
    empty.write("fill.py", FILL)
    empty.environment |= {"BROKER": f"sqlite:///{empty.folder}/bus.db", "DJANGO_SETTINGS_MODULE": "site_settings"}
    filled = empty.python("fill.py", seconds=100)
    assert filled.code == 0, filled.err
    theirs = json.loads(filled.out.splitlines()[-1])
    now = datetime.fromisoformat(theirs["now"])

    code, out, _ = theirs["dry"]
    assert (code, "hourly: added" in out) == (1, True)
    code, out, err = theirs["done"]
    assert (code, "hourly: added" in out) == (1, True)  # so the dry run had not
    assert "tiny: left out: interval cannot be '5e-06 s'" in err
    assert "once-run: left out: a one-off task that has run" in err
    assert "of-code: stands in beat_schedule, and goes on from its last run" in out
    _, out, _ = theirs["again"]
    assert "hourly: is here already" in out
    assert "of-code: is here already" in out
    rows = {row["id"]: row for row in theirs["rows"]}
    assert rows.keys() == theirs["due"].keys() | {"off"}

    for name in rows.keys() - {"off"}:
        is_due, seconds = theirs["due"][name]
        at = datetime.fromisoformat(rows[name]["next"] or "9999-01-01T00:00:00+00:00")
        if is_due:
            assert at <= now, name  # it is overdue in both
        elif name == "ends":
            assert at.year == 9999  # its next run would be after its end
        elif name == "later":
            assert abs(at - now - timedelta(hours=3)) < timedelta(seconds=1)
        else:
            limit = timedelta(minutes=3 if name == "sunset" else 1)
            assert abs(at - now - timedelta(seconds=seconds)) < limit, (name, at, seconds)
    assert theirs["due"]["hourly-overdue"][0]
    assert theirs["due"]["once-missed"][0]
    assert rows["off"]["paused"] == "disabled in django-celery-beat"
    overdue = datetime.fromisoformat(rows["hourly-overdue"]["next"])
    assert timedelta(minutes=229) < now - overdue < timedelta(minutes=231)

    beat = empty.start("beat", "-A", "proj", name="beat")
    beat.wait_for_log("caught up entry='hourly-overdue'", 100)
    beat.wait_for_log("caught up entry='once-missed'", 100)
    assert beat.stop() == 0
    assert "entry='hourly' " not in beat.read_log()
    assert (beat.read_log().count("caught up entry="), beat.read_log().count(" fired entry=")) == (2, 0)
