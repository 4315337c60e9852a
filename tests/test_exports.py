"""The public names: each loads, each stands where the table says, and nothing else answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lightbus


@pytest.mark.parametrize("name", lightbus.__all__)
def test_a_public_name_loads_and_is_documented(name: str) -> None:
    assert getattr(lightbus, name).__doc__


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="'Buss'"):
        lightbus.Buss  # type: ignore[attr-defined]  # noqa: B018
    assert set(dir(lightbus)) == {*lightbus.__all__, "__version__"}


def test_importing_all_public_names_loads_no_broker_library() -> None:
    program = "import sys; from lightbus import *; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert "lightbus.bus" in loaded
    assert not {"kombu", "amqp", "redis", "celery", "asyncio", "sqlite3"} & set(loaded)


def test_no_module_hides_a_public_name() -> None:
    """A submodule becomes an attribute of the package when it is imported, whatever stood there."""
    import lightbus.bus  # loads nearly all others
    from lightbus import rpc

    assert callable(rpc)
    assert not [name for name in lightbus.__all__ if f"lightbus.{name}" in sys.modules]
