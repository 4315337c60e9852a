"""Who may import whom: the layers of Lightbus, read from the source of every module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT

#: Layer to what it may import. Modules that are not named in LAYERS are the runtime.
MAY_IMPORT = {
    "core": {"core"},
    "ports": {"core", "ports"},
    "runtime": {"core", "ports", "runtime"},
    "drivers": {"core", "ports", "drivers"},
    "bus": {"core", "ports", "runtime", "drivers", "bus", "scheduler"},
    "public": {"core", "ports", "runtime", "drivers", "bus"},
    "testing": {"core", "ports", "runtime", "drivers", "bus", "public", "testing"},
    "compat": {"core", "ports", "public", "compat", "scheduler"},
    "contrib": {"core", "ports", "runtime", "public", "contrib"},
    "cli": {"core", "ports", "runtime", "drivers", "bus", "public", "testing", "compat", "contrib", "scheduler", "cli"},
    "scheduler": {"scheduler"},
}
LAYERS = {
    "lightbus": "public",  # lightbus/__init__.py
    "lightbus.version": "core",
    "lightbus.endpoint": "ports",  # the seam of what a worker serves
    "lightbus.forks": "ports",  # the seam of what must be made anew in a child
    "lightbus.result_ports": "ports",
    "lightbus.publishing": "ports",  # the seam of who looks on
    "lightbus.beat": "bus",
    **{f"lightbus.{name}": name for name in ("core", "ports", "drivers", "bus", "testing", "compat", "contrib", "cli")},
    "lightbus_scheduler": "scheduler",
}
#: Third-party packages to the only modules, or packages of modules, that may import them.
ONLY_IN = {
    "celery": ("lightbus.compat.bridge", "lightbus.compat.backends.celery_class"),
    "django": (
        "lightbus.contrib.django",
        "lightbus.contrib.outbox.django",
        "lightbus.compat.django",
        "lightbus.compat.beat_tables",
        "lightbus.compat.backends.django_cache",
        "lightbus.compat.backends.django_tables",
    ),
    "astral": ("lightbus_scheduler.solar",),
    "sqlalchemy": (
        "lightbus.contrib.claims",
        "lightbus.contrib.sqlalchemy",
        "lightbus.contrib.outbox.sqlalchemy",
        "lightbus.compat.backends.database",
    ),
    "prometheus_client": ("lightbus.contrib.metrics",),
    "opentelemetry": ("lightbus.contrib.otel",),
    **dict.fromkeys(("amqp", "vine", "redis"), ("lightbus.drivers", "lightbus.compat.bridge")),
    "kombu": (
        "lightbus.drivers",
        "lightbus.compat.bridge",
        "lightbus.compat.connections",
        "lightbus.compat.remote",
        "lightbus.compat.serializers",
    ),
}
#: The core has no socket, thread, clock or random number: they come in as arguments.
NOT_IN_CORE = {"asyncio", "multiprocessing", "random", "secrets", "select", "selectors", "signal", "socket"} | {
    "sqlite3", "subprocess", "threading", "time",
}  # fmt: skip


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name to file, of all that is installed from `root`."""
    found = {}
    for base, package in ((root, "lightbus"), (root / "scheduler", "lightbus_scheduler")):
        for path in (base / package).rglob("*.py"):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports_of(module: str, path: Path, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, at its top or inside a function."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:  # `from package import module` imports the module
                whole = f"{source}.{alias.name}"
                yield node.lineno, whole if whole in modules else source


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer_of(module: str) -> str:
    inside = [name for name in LAYERS if is_inside(module, name) and name != "lightbus"]
    return LAYERS[inside[0]] if inside else LAYERS.get(module, "runtime")


def objection(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, or None."""
    layer, top = layer_of(module), imported.partition(".")[0]
    if top in ("lightbus", "lightbus_scheduler"):
        target = layer_of(imported)
        return None if target in MAY_IMPORT[layer] else f"{layer} may not import {target}"
    if top in ONLY_IN and not any(is_inside(module, allowed) for allowed in ONLY_IN[top]):
        return f"only {' and '.join(ONLY_IN[top])} may import {top}"
    if layer == "core" and top in NOT_IN_CORE:
        return f"core may not import {top}"
    if layer == "scheduler" and top not in sys.stdlib_module_names and top not in ONLY_IN:
        return "scheduler may only import the standard library"
    return None


def violations(root: Path) -> list[str]:
    modules = modules_of(root)
    return [
        f"{path.relative_to(root)}:{line}: imports {imported}: {reason}"
        for module, path in sorted(modules.items())
        for line, imported in imports_of(module, path, modules)
        if (reason := objection(module, imported))
    ]


def test_every_module_keeps_to_its_layer() -> None:
    assert "lightbus.ports" in modules_of(ROOT)
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    "path, code",
    [
        ("lightbus/core/retry.py", "import time"),
        ("lightbus/core/retry.py", "from lightbus import ports"),
        ("lightbus/core/retry.py", "from ..ports import Transport"),
        ("lightbus/core/retry.py", "import lightbus"),
        ("lightbus/ports.py", "from lightbus.router import Router"),
        ("lightbus/ports.py", "from . import router"),
        ("lightbus/router.py", "from lightbus.drivers.memory import MemoryTransport"),
        ("lightbus/router.py", "def late():\n    import kombu"),
        ("lightbus/worker/process.py", "from lightbus.cli import main"),
        ("lightbus/drivers/memory.py", "from lightbus.router import Router"),
        ("lightbus/drivers/memory.py", "import celery.app"),
        ("lightbus/bus.py", "from lightbus.compat import task"),
        ("lightbus/__init__.py", "from .compat import task"),
        ("lightbus/compat/app.py", "from lightbus.worker.process import run"),
        ("lightbus/compat/app.py", "from kombu import Connection"),
        ("lightbus/compat/app.py", "import celery"),
        ("lightbus/contrib/django.py", "from lightbus.compat import task"),
        ("lightbus/bus.py", "from .contrib import otel"),
        ("lightbus/worker/slots.py", "import prometheus_client"),
        ("lightbus/testing/bus.py", "import lightbus.compat.app"),
        ("scheduler/lightbus_scheduler/cron.py", "import msgspec"),
        ("scheduler/lightbus_scheduler/cron.py", "import lightbus"),
    ],
)
def test_an_import_against_the_layers_is_found(path: str, code: str, tmp_path: Path) -> None:
    for name in ("ports", "router", "bus", "__init__", "core/__init__", "compat/__init__", "drivers/__init__"):
        module = tmp_path / "lightbus" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.touch()
    assert violations(tmp_path) == []
    seeded = tmp_path / path
    seeded.parent.mkdir(parents=True, exist_ok=True)
    seeded.write_text(code)
    (found,) = violations(tmp_path)
    assert found.startswith(f"{path}:")


@pytest.mark.parametrize(
    "path, code",
    [
        ("lightbus/compat/bridge.py", "import celery, kombu"),
        ("lightbus/compat/app.py", "import lightbus, lightbus_scheduler\nfrom lightbus.core import errors"),
        ("lightbus/drivers/redis.py", "import redis\nfrom lightbus.ports import Transport"),
        ("lightbus/cli/worker.py", "from lightbus.compat import app\nfrom lightbus.worker import run"),
        ("lightbus/worker/process.py", "import threading\nfrom lightbus import ports\nfrom ..router import Router"),
        ("scheduler/lightbus_scheduler/cron.py", "import datetime\nfrom . import every"),
    ],
)
def test_an_import_along_the_layers_is_allowed(path: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "lightbus").mkdir()
    (tmp_path / "lightbus" / "ports.py").touch()
    allowed = tmp_path / path
    allowed.parent.mkdir(parents=True, exist_ok=True)
    allowed.write_text(code)
    assert violations(tmp_path) == []
