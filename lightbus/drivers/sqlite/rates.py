"""The rates that all workers on the file share: `core.rate` on a row each.

The table is made when it is first used: older code does not know it, and does not mind it. Moments are of the monotonic
clock, as leases are; after a reboot it begins anew, and `take` does not believe the old ones.
"""

from __future__ import annotations

import time

from ...core.rate import Bucket, Turn, take
from .database import Database

TABLE = """
CREATE TABLE IF NOT EXISTS rates(
    name TEXT PRIMARY KEY, free_at REAL NOT NULL, planned_until REAL NOT NULL) WITHOUT ROWID
"""


def take_turn(database: Database, name: str, interval_seconds: float, most_wait_seconds: float) -> Turn:
    """See `lightbus.ports.RateStore`."""
    with database.transaction() as c:
        c.execute(TABLE)
        row = c.execute("SELECT free_at, planned_until FROM rates WHERE name=?", (name,)).fetchone()
        bucket = Bucket() if row is None else Bucket(*row)
        bucket, turn = take(bucket, interval_seconds, time.monotonic(), most_wait_seconds=most_wait_seconds)
        c.execute("INSERT OR REPLACE INTO rates VALUES(?,?,?)", (name, bucket.free_at, bucket.planned_until))
    return turn
