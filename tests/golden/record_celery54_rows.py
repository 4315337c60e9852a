"""Records what Celery 5.4 writes into its database tables; run by hand, with that version and SQLAlchemy installed.

python tests/golden/record_celery54_rows.py > tests/golden/celery54/rows.json
python tests/golden/record_celery54_rows.py yaml > tests/golden/celery54/rows_yaml.json  # and msgpack, pickle
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import sys
import tempfile
from typing import Any

import celery
from celery import Celery
from celery.app.task import Context


def main(serializer: str) -> None:
    assert celery.VERSION[:2] == (5, 4), celery.__version__
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        app = Celery("recorded", broker="memory://", backend="db+sqlite:///r.sqlite")  # rows name the URL
        app.conf.result_extended = True
        app.conf.result_serializer = serializer
        app.conf.accept_content = [serializer]
        request = Context(
            task="t", args=[1, "é"], kwargs={"a": None}, hostname="w@h", retries=2, delivery_info={"routing_key": "q"}
        )
        results: dict[str, tuple[Any, str]] = {
            "value": ({"n": [1, None, "é"]}, "SUCCESS"),
            "nothing": (None, "SUCCESS"),
            "failure": (ValueError("no", 7), "FAILURE"),
            "state": ({"done": 5}, "PROGRESS"),
        }
        for task_id, (result, state) in results.items():
            app.backend.store_result(task_id, result, state, request=request)
        members = [
            app.AsyncResult("m1"),
            app.GroupResult("inner", [app.AsyncResult("m2", parent=app.AsyncResult("p"))]),
        ]
        app.GroupResult("group", members).save(backend=app.backend)
        connection = sqlite3.connect("r.sqlite")
        connection.row_factory = sqlite3.Row
        tables = {name: _rows(connection, name) for name in ("celery_taskmeta", "celery_tasksetmeta")}
    print(json.dumps(tables, indent=1))


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    found = []
    for row in connection.execute(f"select * from {table}"):
        cells = dict(row)
        found.append(
            {
                name: {"base64": base64.b64encode(cell).decode()} if isinstance(cell, bytes) else cell
                for name, cell in cells.items()
            }
        )
    return found


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "json")
