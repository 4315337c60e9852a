"""Brokers for the tests: where their programs are, how a private one is started, and who gets what.

`RabbitMQ` and `Redis` are private servers on free loopback ports, with their files in one folder.
`Brokers` is what all processes of one test run share: each server is started once, by the first
test that asks for it, and every test gets a virtual host or a database number that no other has.

With LIGHTBUS_TEST_AMQP_URL and LIGHTBUS_TEST_REDIS_URL the tests use servers that run already.
RabbitMQ then also needs its management API in LIGHTBUS_TEST_AMQP_API (http://127.0.0.1:15672),
because virtual hosts are made there. A Redis database that is not empty is left alone.

The fixtures are in `conftest.py`. What a missing server means is decided here: an error, never a skip.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import redis

KEEP = Path(__file__).with_name("tools") / "keep.py"
RABBITMQ_PATHS = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin")
START_SECONDS = 90  # RabbitMQ takes 5 to 15 on a small machine, and more on a busy one
REDIS_DATABASES = 1024

ServerT = TypeVar("ServerT", bound="Server")


class BrokerMissing(RuntimeError):
    """A server that the tests need is neither installed nor named by a URL."""


class BrokerFailed(RuntimeError):
    """A server did not start or did not obey; the text ends in the tail of its log."""


def find_program(name: str) -> str | None:
    """The path of a program, or None.

    Debian's /usr/sbin/rabbitmq-server changes to another user first, who cannot read our files:
    the program behind that wrapper comes first.
    """
    for folder in RABBITMQ_PATHS:
        path = Path(folder, name)
        if path.exists():
            return str(path)
    return shutil.which(name)


def missing_packages() -> list[str]:
    """Debian's names of the packages that are needed, not installed and not replaced by a URL."""
    missing = []
    if "LIGHTBUS_TEST_AMQP_URL" not in os.environ and not (find_program("rabbitmq-server") and find_program("epmd")):
        missing.append("rabbitmq-server")
    if "LIGHTBUS_TEST_REDIS_URL" not in os.environ and not find_program("redis-server"):
        missing.append("redis-server")
    if find_postgres("postgres") is None:
        missing.append("postgresql")
    missing += [package for package, name in (("nodejs", "node"), ("npm", "npm")) if not find_program(name)]
    return missing


def find_postgres(name: str) -> str | None:
    """The path of a program of PostgreSQL's server, of its newest version; Debian keeps them off the PATH."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*") if path.name.isdigit()]
    for folder in sorted(versions, key=lambda path: int(path.name), reverse=True):
        if (folder / "bin" / name).exists():
            return str(folder / "bin" / name)
    return shutil.which(name)


def how_to_get(packages: list[str]) -> str:
    """One sentence for people whose machine lacks `packages`."""
    variables = {"rabbitmq-server": "LIGHTBUS_TEST_AMQP_URL", "redis-server": "LIGHTBUS_TEST_REDIS_URL"}
    named = [variables[package] for package in packages if package in variables]
    return (
        f"The tests need {' and '.join(packages)}, not found here: install with 'apt-get install {' '.join(packages)}' "
        f"or your system's like{', or name running ones in ' if named else ''}{' and '.join(named)}."
    )


def free_port() -> int:
    """A loopback port that nobody listens on, below the range that outgoing connections take."""
    for _ in range(200):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BrokerFailed("found no free port between 20000 and 32000 on 127.0.0.1")


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log without their colours, or a note that there is none."""
    if not path.exists():
        return f"({path.name} does not exist)"
    text = re.sub(r"\x1b\[[0-9;]*m", "", path.read_text(errors="replace"))
    return "\n".join(text.splitlines()[-lines:])


def wait_until_gone(pid: int, seconds: float) -> None:
    """Return when no process has that pid any more, or after that long."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Pids of what a process has started, and of what those have, parents first. Linux."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


class Server:
    """A private server: `start`, `stop`, and `start` again on the same ports and files.

    Args:
        folder: for its files; made when missing.
        owner_pid: the server dies with this process; by default the caller's.
        ports: of a server that runs already in `folder`, to join it; free ones are chosen otherwise.
    """

    name = "server"
    ports_needed = 1
    greeting = b""  #: what a client says first
    welcome = b""  #: how the answer begins when the server is up; Redis says `-LOADING` before it is

    def __init__(self, folder: Path, owner_pid: int | None = None, ports: Sequence[int] = ()) -> None:
        self.folder = folder
        self.owner_pid = owner_pid or os.getpid()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = tuple(ports) or tuple(free_port() for _ in range(self.ports_needed))
        self.port = self.ports[0]
        self.log = folder / f"{self.name}.log"
        self._keepers: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        raise NotImplementedError

    def commands(self) -> dict[str, list[str]]:
        """Name to command line, in the order of starting."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            BrokerMissing: the program is not installed.
            BrokerFailed: it ended, or did not answer within START_SECONDS.
        """
        for name, command in self.commands().items():
            with self.log.open("ab") as log:
                pid_file = self.folder / f"{name}.keep.pid"
                keeper = [sys.executable, "-S", "-E", str(KEEP), str(self.owner_pid), str(pid_file), *command]
                self._keepers.append(
                    subprocess.Popen(
                        keeper,
                        env=self.environment(),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if any(keeper.poll() is not None for keeper in self._keepers) or time.monotonic() > deadline:
                self.stop()
                raise BrokerFailed(f"{self.name} did not start; the end of its log:\n{tail(self.log)}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """True when a client that says the greeting is welcome."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                client.sendall(self.greeting)
                return client.recv(len(self.welcome), socket.MSG_WAITALL) == self.welcome
        except OSError:
            return False

    def stop(self) -> None:
        """End it at once, as `kill -9` would; what it had written to disk is there at the next start."""
        for keeper in reversed(self._keepers):
            keeper.send_signal(signal.SIGTERM)
        for keeper in self._keepers:
            keeper.wait(timeout=30)
        self._keepers.clear()

    def freeze(self) -> None:
        """Stop its processes where they are (SIGSTOP): connections stand and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Not the keepers, which have to end the rest whatever happens.
        pids = [pid for keeper in self._keepers for pid in descendants(keeper.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()


class RabbitMQ(Server):
    """A RabbitMQ node with its own name, cookie, port mapper and files."""

    name = "rabbitmq"
    ports_needed = 3
    greeting = b"AMQP\x00\x00\x09\x01"
    welcome = b"\x01"  # a method frame: Connection.Start

    def __init__(self, folder: Path, owner_pid: int | None = None, ports: Sequence[int] = ()) -> None:
        super().__init__(folder, owner_pid, ports)
        _, self.epmd_port, self.dist_port = self.ports
        self.node = f"lightbus-{self.port}@localhost"
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(f"lightbus{random.getrandbits(64):x}")
            cookie.chmod(0o400)
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 50MB\n"  # the default alarm would stop every publisher on a full laptop
            "log.console = true\n"
            "log.console.level = info\n"
            "log.file = false\n"
        )
        # A node that was killed while it handed a delayed message on tries again after this long; its default of
        # three minutes is longer than a test waits.
        (folder / "advanced.config").write_text("[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def commands(self) -> dict[str, list[str]]:
        server, epmd = find_program("rabbitmq-server"), find_program("epmd")
        if server is None or epmd is None:
            raise BrokerMissing(how_to_get(["rabbitmq-server"]))
        # Started by us, epmd stays in the foreground and ends with the rest; the node would leave it behind.
        return {"epmd": [epmd, "-port", str(self.epmd_port), "-address", "127.0.0.1"], "rabbitmq": [server]}

    def environment(self) -> dict[str, str]:
        settings = {
            "HOME": self.folder,
            "ERL_EPMD_PORT": self.epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": self.dist_port,
            "RABBITMQ_MNESIA_BASE": self.folder / "mnesia",
            "RABBITMQ_LOG_BASE": self.folder / "log",
            "RABBITMQ_CONFIG_FILE": self.folder / "rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": self.folder / "conf.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": self.folder / "advanced.config",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "enabled_plugins",
            # Schedulers that spin while idle would take the processor from the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
            "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {name: str(value) for name, value in settings.items()}

    def evaluate(self, erlang: str) -> None:
        """Run an Erlang expression in the node; it has to give ok.

        erl_call takes milliseconds, rabbitmqctl starts a virtual machine and takes a second. Each call
        has a name of its own, because the node refuses a second caller of the same name (with -r too).
        """
        erl_call = find_program("erl_call")
        if erl_call:
            caller = f"caller-{uuid.uuid4().hex[:12]}"
            command, given, wanted = [erl_call, "-h", caller, "-sname", self.node, "-e"], f"{erlang}.\n", "{ok, ok}"
        else:
            command, given, wanted = [find_program("rabbitmqctl") or "rabbitmqctl", "eval", f"{erlang}."], "", "ok"
        done = subprocess.run(
            command, env=self.environment(), input=given, capture_output=True, text=True, timeout=60, check=False
        )
        if done.stdout.strip() != wanted:
            said = f"{done.stdout}{done.stderr}"
            raise BrokerFailed(f"RabbitMQ refused {erlang!r}: {said}\n{tail(self.log)}")

    def sync_tables(self) -> None:
        """Before a kill: RabbitMQ 3.10 notes on disk which quorum queues a node has only some seconds after it made
        them, and killed before that it comes back with a queue that has no leader."""
        self.evaluate("mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()], ok")

    def add_vhost(self, vhost: str) -> str:
        """Make a virtual host for the user guest; returns its URL."""
        self.evaluate(
            f'V = <<"{vhost}">>, rabbit_vhost:add(V, <<"tests">>), '
            'rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>), '
            "ok"
        )
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def delete_vhost(self, vhost: str) -> None:
        self.evaluate(f'rabbit_vhost:delete(<<"{vhost}">>, <<"tests">>), ok')


class RunningRabbitMQ:
    """A RabbitMQ that somebody else started; virtual hosts are made through its management API."""

    def __init__(self, url: str, api: str) -> None:
        self.url, self.api = url, api
        parts = urlsplit(url)
        self._user, self._password = parts.username or "guest", parts.password or "guest"
        self._server = f"{parts.scheme}://{parts.netloc}"

    def _ask(self, method: str, path: str, body: str = "") -> None:
        request = urllib.request.Request(f"{self.api}/api/{path}", body.encode(), method=method)
        token = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=30).close()

    def add_vhost(self, vhost: str) -> str:
        self._ask("PUT", f"vhosts/{vhost}")
        self._ask(
            "PUT", f"permissions/{vhost}/{self._user}", json.dumps({"configure": ".*", "write": ".*", "read": ".*"})
        )
        return f"{self._server}/{vhost}"

    def delete_vhost(self, vhost: str) -> None:
        self._ask("DELETE", f"vhosts/{vhost}")


class PostgreSQL(Server):
    """A PostgreSQL with one user, who needs no password. For root it runs as nobody: it refuses root.

    Its folder is one that nobody can reach, so `folder` must be too.
    """

    name = "postgresql"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def commands(self) -> dict[str, list[str]]:
        postgres, initdb = find_postgres("postgres"), find_postgres("initdb")
        if postgres is None or initdb is None:
            raise BrokerMissing(how_to_get(["postgresql"]))
        data = self.folder / "data"
        if not data.exists():
            if os.geteuid() == 0:
                os.chown(self.folder, 65534, 65534)
            command = [initdb, "--pgdata", str(data), "--auth", "trust", "--username", "postgres", "--no-sync"]
            subprocess.run([*self._as_nobody(), *command], cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return {self.name: [*self._as_nobody(), postgres, "-D", str(data), "-p", str(self.port), *settings]}

    def answers(self) -> bool:
        """True when it takes connections, and not only answers while it starts."""
        asked = [find_postgres("pg_isready") or "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def stop(self) -> None:
        """As of `Server`, but by its own way to end at once: killed, it would leave a segment of shared memory."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            for keeper in self._keepers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    keeper.wait(timeout=10)
        super().stop()

    def _as_nobody(self) -> list[str]:
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        return nobody if os.geteuid() == 0 else []


class Redis(Server):
    """A redis-server of its own."""

    name = "redis"
    greeting = b"PING\r\n"
    welcome = b"+PONG"
    keeps_data = False  #: True writes each command to disk before it answers, so that data outlives `stop`

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def commands(self) -> dict[str, list[str]]:
        program = find_program("redis-server")
        if program is None:
            raise BrokerMissing(how_to_get(["redis-server"]))
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "databases": REDIS_DATABASES,
            "save": "",
            "appendonly": "yes" if self.keeps_data else "no",
            "appendfsync": "always",
        }
        line = [program]
        for name, value in options.items():
            line += [f"--{name}", str(value)]
        return {"redis": line}


class Brokers:
    """The brokers of one test run, as one of its processes sees them.

    All processes of the run share `folder`: file locks there decide who starts a server and who has
    which database; a counter gives virtual hosts their numbers.
    """

    def __init__(self, folder: Path, owner_pid: int) -> None:
        self.folder = folder
        self.owner_pid = owner_pid
        self._rabbitmq: RabbitMQ | RunningRabbitMQ | None = None
        self._redis_url: str | None = None
        self._postgres: PostgreSQL | None = None

    # Servers

    def rabbitmq(self) -> RabbitMQ | RunningRabbitMQ:
        """The RabbitMQ of this run, started when it is not yet."""
        if self._rabbitmq is None:
            url, api = os.environ.get("LIGHTBUS_TEST_AMQP_URL"), os.environ.get("LIGHTBUS_TEST_AMQP_API")
            if url and not api:
                raise BrokerMissing(
                    "LIGHTBUS_TEST_AMQP_URL needs LIGHTBUS_TEST_AMQP_API beside it, the address of that "
                    "RabbitMQ's management API like http://127.0.0.1:15672: the tests make virtual hosts there."
                )
            self._rabbitmq = RunningRabbitMQ(url, api) if url and api else self._join(RabbitMQ)
        return self._rabbitmq

    def redis_server_url(self) -> str:
        """The Redis of this run, started when it is not yet: URL of its database 0."""
        if self._redis_url is None:
            self._redis_url = os.environ.get("LIGHTBUS_TEST_REDIS_URL") or self._join(Redis).url
        return self._redis_url

    def postgres_server(self) -> PostgreSQL:
        """The PostgreSQL of this run, started when it is not yet."""
        if self._postgres is None:
            self.folder.chmod(0o711)  # for its user, who is another one where root runs the tests
            self._postgres = self._join(PostgreSQL)
        return self._postgres

    def _join(self, kind: type[ServerT]) -> ServerT:
        folder = self.folder / kind.name
        state, failure = folder / "state.json", folder / "failure.txt"
        with self._lock(f"{kind.name}.lock"):
            if failure.exists():
                raise BrokerFailed(failure.read_text())
            if state.exists():
                return kind(folder, self.owner_pid, json.loads(state.read_text()))
            server = kind(folder, self.owner_pid)
            try:
                server.start()
            except (BrokerFailed, BrokerMissing) as error:
                failure.write_text(str(error))
                raise
            state.write_text(json.dumps(server.ports))
            return server

    def logs(self) -> dict[str, str]:
        """Name to the log's tail, of each private server that was started."""
        return {path.stem: tail(path) for path in sorted(self.folder.glob("*/*.log"))}

    def stop(self) -> None:
        """End all servers of the run and wait until they are gone. The owner calls this, once."""
        with contextlib.suppress(OSError, ValueError):  # by its own way, as `PostgreSQL.stop`; its keeper ends with it
            pid = int((self.folder / PostgreSQL.name / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGQUIT)
            wait_until_gone(pid, 10)
        pid_files = list(self.folder.glob("*/*.keep.pid"))
        for pid_file in pid_files:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
        deadline = time.monotonic() + 30
        while any(pid_file.exists() for pid_file in pid_files):
            if time.monotonic() > deadline:
                raise BrokerFailed(f"a server did not end within 30 seconds: {[str(path) for path in pid_files]}")
            time.sleep(0.02)

    # What a test gets

    @contextlib.contextmanager
    def vhost(self) -> Iterator[str]:
        """URL of an empty virtual host that no other test gets; deleted afterwards."""
        server = self.rabbitmq()
        vhost = f"test-{os.path.basename(self.folder)}-{self._next_number('vhost')}"
        url = server.add_vhost(vhost)
        try:
            yield url
        finally:
            server.delete_vhost(vhost)

    @contextlib.contextmanager
    def redis_database(self) -> Iterator[str]:
        """URL of an empty database that no other test has at the same time; emptied afterwards."""
        parts = urlsplit(self.redis_server_url())
        server = redis.Redis.from_url(self.redis_server_url())
        count = int(server.config_get("databases")["databases"])
        server.close()
        for _ in range(count):
            number = 1 + self._next_number("redis") % (count - 1)
            with contextlib.ExitStack() as held:
                if not held.enter_context(self._try_lock(f"redis-{number}.lock")):
                    continue
                url = parts._replace(path=f"/{number}").geturl()
                client = held.enter_context(redis.Redis.from_url(url))
                if client.dbsize():
                    continue  # on a server that is not ours this is somebody's data
                try:
                    yield url
                finally:
                    client.flushdb()
                return
        raise BrokerFailed(f"none of the {count - 1} databases from 1 on at {parts.netloc} is empty and free")

    @contextlib.contextmanager
    def postgres_database(self) -> Iterator[str]:
        """URL of an empty database of PostgreSQL that no other test gets; deleted afterwards."""
        server = self.postgres_server()
        name = f"test{self._next_number('postgres')}"
        import psycopg  # here: benchmarks start brokers too, in an environment without it

        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"create database {name}")
            try:
                yield f"{server.url.rpartition('/')[0]}/{name}"
            finally:
                connection.execute(f"drop database {name} with (force)")

    # Shared by the processes of a run

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.folder / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _try_lock(self, name: str) -> Iterator[bool]:
        with (self.folder / name).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _next_number(self, name: str) -> int:
        counter = self.folder / f"{name}.number"
        with self._lock(f"{name}.number.lock"):
            number = int(counter.read_text()) + 1 if counter.exists() else 1
            counter.write_text(str(number))
        return number
