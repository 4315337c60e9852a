"""The pytest plugin: the fixture `bus_test`. pytest loads it wherever Lightbus is installed, so it is light itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .verbs import Harness


@pytest.fixture
def bus_test() -> Iterator[Callable[..., Harness]]:
    """Puts buses under test until the test ends: `t = bus_test(bus)`; see `lightbus.testing.harness`."""
    from .verbs import harness

    with ExitStack() as stack:

        def start(*apps: Any, raises: bool = True, url: str = "") -> Harness:
            return stack.enter_context(harness(*apps, raises=raises, url=url))

        yield start
