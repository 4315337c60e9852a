"""The page docs/migration/compatibility.md: up to date, complete against Celery, and with a test for all that works."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import celery
import pytest
from celery.app.task import Context
from celery.worker.control import Panel

from tests.processes import ROOT


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "tests" / "tools" / "compatibility.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tables_say(tool: ModuleType) -> None:
    assert Path(tool.PAGE).read_text(encoding="utf-8") == tool.page(), "run python tests/tools/compatibility.py"


def test_what_works_names_a_test_that_exists(tool: ModuleType) -> None:
    existing: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        existing.update(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")))
    lines = re.findall(r"^\| (\S.*?) \| (works|works differently) \| .*? \| (.*) \|$", tool.page(), re.MULTILINE)
    assert len(lines) > 100
    assert [name for name, _, test in lines if test.strip("`") not in existing] == []


def public(*things: object) -> set[str]:
    return {name for thing in things for name in dir(thing) if not name.startswith("_")}


def test_every_name_of_celerys_has_a_row(tool: ModuleType) -> None:
    app = celery.Celery("names", set_as_current=False)
    celerys = {
        "APP": public(celery.Celery) | {name for name in vars(app) if not name.startswith("_")},
        "TASK_OPTIONS": public(celery.Task) - {"app", "backend", "AsyncResult", "update_state"}
        - {"MaxRetriesExceededError", "OperationalError", "track_started", "store_errors_even_if_ignored"}
        - {"store_eager_result"},
        "REQUEST_ATTRIBUTES": public(Context),
        "CALL_OPTIONS": set(inspect.signature(celery.Celery.send_task).parameters) - {"self", "name", "options"}
        - {"result_cls", "route_name", "task_type"},
        "CONTROL": {name for name in Panel.data if not name.startswith("dump_")},
    }  # fmt: skip
    for table, names in celerys.items():
        missing = names - {row.name for row in getattr(tool, table)}
        assert not missing, f"{table} in tests/tools/compatibility.py lacks {sorted(missing)}"


def test_what_is_called_missing_is_missing(tool: ModuleType) -> None:
    from lightbus import compat

    app = compat.Celery("names", set_as_current=False)
    rows = {row.name for row in tool.APP if row.verdict == tool.MISSING} - {"worker_main", "start"}
    assert [name for name in rows if hasattr(app, name)] == []
    for row in tool.APP:
        if row.verdict == tool.WORKS:
            assert hasattr(app, row.name), row.name
    for row in tool.REQUEST_ATTRIBUTES:
        assert hasattr(compat.Request(), row.name) is (row.verdict != tool.MISSING), row.name
