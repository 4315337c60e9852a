"""Where the shop's broker and results are."""

from __future__ import annotations

import os

from lightbus.config import resolve_url

#: `LIGHTBUS_URL`, or the embedded broker in `./.lightbus/`: Celery and Lightbus on one broker.
BROKER = resolve_url()
RESULTS = os.environ.get("SHOP_RESULTS", "rpc://")
