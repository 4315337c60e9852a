"""A client of the Redis that a URL and Celery's settings for results describe: TCP, TLS, a socket, sentinels."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from ..core.errors import ConfigError

CONNECT_TIMEOUT_SECONDS = 5.0
#: A command is repeated over about that long when the connection breaks; storing and reading may be repeated.
RETRIES = 6
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})

_CONNECTION = (
    "host", "port", "db", "username", "password", "max_connections", "socket_timeout", "socket_connect_timeout",
    "socket_keepalive", "health_check_interval", "client_name",
)  # fmt: skip


def open_client(url: str, options: Mapping[str, object] = NO_OPTIONS) -> Any:
    """A client that connects on first use.

    Args:
        url: `redis://`, `rediss://` (also with Celery's `ssl_cert_reqs=CERT_NONE` notation), `redis+socket:///path`
            with `?virtual_host=1` for the database, or `sentinel://host:26379/0;sentinel://...`. A URL without a host
            takes it from the options.
        options: `host`, `port`, `db`, `username`, `password`, `max_connections`, `client_name`; `socket_timeout`,
            `socket_connect_timeout` and `health_check_interval` in seconds; `socket_keepalive`; `ssl`, a dict of
            redis-py's `ssl_...` options; `retry_policy`, of which `max_retries`, `interval_start`, `interval_step` and
            `interval_max` count; for sentinels `master_name`, `sentinel_kwargs`, `min_other_sentinels`.

    Raises:
        ConfigError: the URL or an option cannot be used.
    """
    common: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": 10.0,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "protocol": 2,
        "retry": _retry(options.get("retry_policy")),
    }
    common |= {name: options[name] for name in _CONNECTION if options.get(name) is not None}
    scheme = url.partition("://")[0]
    tls = options.get("ssl")
    if tls:
        common |= {"ssl": True, **_tls(tls)}
    try:
        if scheme == "sentinel":
            return _behind_sentinels(url, options, common)
        if scheme == "redis+socket":
            for name in ("host", "port", "ssl", "socket_keepalive", "socket_connect_timeout"):
                common.pop(name, None)
            url = _socket_url(url)
        elif tls and scheme == "redis":
            url = "rediss" + url.removeprefix("redis")
        if tls or scheme in ("rediss", "redis+socket"):
            common.pop("ssl", None)  # the scheme says it
        return Redis.from_url(_plain_ssl(url), **common)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{without_password(url)!r} cannot be used for a Redis: {error}") from error


def without_password(url: str) -> str:
    """The URL, or the URLs of sentinels, without users and passwords."""
    shown = []
    for one in url.split(";"):
        parts = urlsplit(one)
        shown.append(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    return ";".join(shown)


def _behind_sentinels(url: str, options: Mapping[str, object], common: dict[str, Any]) -> Any:
    """The client of the master that the sentinels name at each connection."""
    master = options.get("master_name")
    if not master:
        raise ConfigError(
            f"{without_password(url)!r}: which master? Set result_backend_transport_options = {{'master_name': ...}}"
        )
    hosts, connection = [], dict(common)
    for one in url.split(";"):
        parts = urlsplit(one)
        hosts.append((parts.hostname or "localhost", parts.port or 26379))
        if database := parts.path.strip("/"):
            connection["db"] = int(database)
        if parts.password is not None:
            connection["password"] = unquote(parts.password)
        if parts.username:
            connection["username"] = unquote(parts.username)
    connection.pop("host", None)
    connection.pop("port", None)
    sentinel_kwargs: Any = options.get("sentinel_kwargs")
    least: Any = options.get("min_other_sentinels") or 0
    asked = dict(sentinel_kwargs or {"socket_connect_timeout": connection["socket_connect_timeout"]})
    asked.setdefault("retry", Retry(ExponentialBackoff(cap=1.0, base=0.05), 1))  # one that is away is passed over
    sentinel = Sentinel(hosts, min_other_sentinels=least, sentinel_kwargs=asked, **connection)
    return sentinel.master_for(str(master))


def _retry(policy: object) -> Retry:
    if not isinstance(policy, Mapping):
        return Retry(ExponentialBackoff(cap=1.0, base=0.05), RETRIES)
    most = float(policy.get("interval_max", 1.0))
    first = float(policy.get("interval_start", 0.0)) or float(policy.get("interval_step", 0.2)) or 0.05
    retries = policy.get("max_retries", RETRIES)
    return Retry(ExponentialBackoff(cap=most, base=min(first, most)), RETRIES if retries is None else int(retries))


def _socket_url(url: str) -> str:
    """redis-py's `unix:///path?db=1` for Celery's `redis+socket:///path?virtual_host=1`."""
    address, _, query = url.partition("?")
    named = [("db" if name == "virtual_host" else name, value) for name, value in parse_qsl(query)]
    return f"unix{address.removeprefix('redis+socket')}?{urlencode(named)}"


def _tls(given: object) -> dict[str, Any]:
    """Celery's `redis_backend_use_ssl`: a dict with the constants of Python's module `ssl`, or only yes."""
    if not isinstance(given, Mapping):
        return {}
    words = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}
    found = dict(given)
    if "ssl_cert_reqs" in found:
        value = found["ssl_cert_reqs"]
        found["ssl_cert_reqs"] = _SSL_WORDS.get(str(value), words.get(value, value))
    return found


#: Celery writes the names of Python's constants, redis-py wants its own words.
_SSL_WORDS = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}


def _plain_ssl(url: str) -> str:
    address, found, query = url.partition("?")
    if not found:
        return url
    return f"{address}?{urlencode([(name, _SSL_WORDS.get(value, value)) for name, value in parse_qsl(query)])}"
