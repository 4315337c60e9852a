"""What a slot takes: a delivery with all that is needed to handle it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..endpoint import Endpoint
from ..middleware import Middleware
from ..ports import Delivery

if TYPE_CHECKING:
    from .settle import Settler


@dataclass(slots=True, eq=False)  # by identity: a frozen one takes twice as long to make
class Work:
    """A delivery with all that is needed to handle it."""

    delivery: Delivery
    endpoint: Endpoint
    settler: Settler
    middleware: Sequence[Middleware] = ()
    keeps_place: bool = False  #: handed back it would come here again, and only here
    admitted: bool = False  #: it had to wait, and its turn has come
