"""What the shop tells everybody."""

from __future__ import annotations

from lightbus import Api, Event


class Orders(Api, name="shop.orders", version="1.0"):
    """Owned by `shop`. Whoever wants to know listens; the shop does not know who does."""

    class placed(Event):
        order: int
        email: str
        cents: int
