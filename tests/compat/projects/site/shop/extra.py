from __future__ import annotations

from shopsite.engine import shared_task


@shared_task(name="extra")
def extra() -> str:
    return "included"
