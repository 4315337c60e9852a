"""The permits that all workers on the file share: a row for each that is held, until the end of its lease.

The table is made when it is first used, as that of the rates. Moments are of the monotonic clock: after a reboot
nothing is held, so a lease that ends later than it can have been taken by now is not believed.
"""

from __future__ import annotations

import time

from .database import Database

TABLE = """
CREATE TABLE IF NOT EXISTS permits(
    name TEXT NOT NULL, holder TEXT NOT NULL, until REAL NOT NULL, lease REAL NOT NULL,
    PRIMARY KEY(name, holder)) WITHOUT ROWID
"""


def hold_permit(database: Database, name: str, holder: str, most: int, lease_seconds: float) -> bool:
    """See `lightbus.ports.PermitStore`."""
    with database.transaction() as c:
        c.execute(TABLE)
        # Now and not before: who has waited for the others would not believe the leases that they took meanwhile.
        now = time.monotonic()
        c.execute("DELETE FROM permits WHERE name=? AND (until<=? OR until>?+lease)", (name, now, now))
        others = c.execute("SELECT count(*) FROM permits WHERE name=? AND holder<>?", (name, holder)).fetchone()[0]
        kept = c.execute("SELECT 1 FROM permits WHERE name=? AND holder=?", (name, holder)).fetchone() is not None
        if not kept and others >= most:
            return False
        c.execute("INSERT OR REPLACE INTO permits VALUES(?,?,?,?)", (name, holder, now + lease_seconds, lease_seconds))
    return True


def free_permit(database: Database, name: str, holder: str) -> None:
    """See `lightbus.ports.PermitStore`."""
    with database.transaction() as c:
        c.execute(TABLE)
        c.execute("DELETE FROM permits WHERE name=? AND holder=?", (name, holder))
