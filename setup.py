"""Packaging of Lightbus: what is installed, and what it needs.

The version is read from the text of `lightbus/version.py`, so that building needs none of the
dependencies. Tool settings are in `pyproject.toml`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

REDIS = ["kombu[redis]>=5.4"]  # kombu knows which redis clients it works with
CELERY = ["celery>=5.3"]
SQLALCHEMY = ["sqlalchemy>=2.0"]
YAML = ["pyyaml>=5.1"]
MSGPACK = ["msgpack>=1.0"]
DJANGO_RESULTS = ["django>=4.2", "django-celery-results>=2.5"]
METRICS = ["prometheus-client>=0.20"]
OTEL = ["opentelemetry-api>=1.20"]
SHELL = ["ipython>=8.12"]
SOLAR = ["astral>=3.2"]
PEERS = [*REDIS, *CELERY, "dramatiq[rabbitmq,redis]>=1.17", "faststream[rabbit]>=0.5", "huey>=2.5", "psutil>=5.9"]
BENCH = [*PEERS, "nameko>=2.14"]  # its pytest plugin, and eventlet, stay out of the tests
TEST = [
    *PEERS,
    *METRICS,
    *OTEL,
    "opentelemetry-instrumentation-celery>=0.41b0",
    "opentelemetry-sdk>=1.20",
    *DJANGO_RESULTS,
    *MSGPACK,
    *YAML,
    "attrs>=23.1",
    "flower>=2.0",
    "gunicorn>=21.2",
    "jsonschema>=4.18",
    "mypy>=1.13",
    "psycopg[binary]>=3.2",
    *SHELL,
    *SQLALCHEMY,
    "sqlalchemy[asyncio]>=2.0",
    *SOLAR,
    "ephem>=4.1",
    "django-celery-beat>=2.5",
    "pydantic>=2.5",
    "cronsim>=2.6",
    "freezegun>=1.5",
    "hypothesis>=6.100",
    "pytest>=8.2,<9.2",  # 9.2 does not read what xdist 3.8 writes a test's group into: see tests/conftest.py
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "tzdata",
]
DEV = [*TEST, "build>=1.2", "ruff>=0.8", "tox>=4.20"]


def read_version() -> str:
    text = (HERE / "lightbus" / "version.py").read_text(encoding="utf-8")
    found = re.search(r"""^VERSION(?:\s*:[^=]+)?\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    if found is None:
        raise SystemExit('lightbus/version.py has no line like VERSION = "1.2.3"')
    return found.group(1)


def read_readme() -> str:
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="lightbus-kombu",
    version=read_version(),
    description="Events, remote calls and Celery-compatible tasks for several applications on one broker",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[*find_packages(include=["lightbus", "lightbus.*"]), *find_packages("scheduler")],
    package_dir={"lightbus_scheduler": "scheduler/lightbus_scheduler"},
    package_data={"lightbus": ["py.typed"], "lightbus_scheduler": ["py.typed"]},
    install_requires=[
        "amqp>=5.2",
        "click>=8.1",
        "kombu>=5.4",
        "msgspec>=0.18",
        "tomli>=2; python_version < '3.11'",
    ],
    extras_require={
        "redis": REDIS,
        "celery": CELERY,
        "metrics": METRICS,
        "otel": OTEL,
        "shell": SHELL,
        "sqlalchemy": SQLALCHEMY,
        "django-results": DJANGO_RESULTS,
        "msgpack": MSGPACK,
        "yaml": YAML,
        "solar": SOLAR,
        "demo": [*REDIS, *CELERY, "rich>=13"],
        "bench": BENCH,
        "test": TEST,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": ["lightbus = lightbus.cli.__main__:main"],
        "pytest11": ["lightbus = lightbus.testing.plugin"],
    },
    classifiers=[
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
