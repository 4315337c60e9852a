"""A program that has published forks while its other threads publish on: nobody hangs, and nothing is mixed up."""

from __future__ import annotations

from pathlib import Path

from lightbus import Api, Bus, Event, current_delivery, rpc
from lightbus.worker import WorkerOptions
from tests.processes import Processes, wait_for
from tests.runtime.workers import working


class Forks(Api, name="tests.forks", version="1.0"):
    class said(Event):
        what: str

    @rpc(timeout_seconds=30.0)
    def echo(self, *, what: str) -> str:
        raise NotImplementedError


class OurForks(Forks):
    @rpc()
    def echo(self, *, what: str) -> str:
        return what


#: As a server with preloaded code: forks by `os.fork`, and by `multiprocessing`, whose children end in their own way.
PROGRAM = """
import itertools, multiprocessing, os, sys, threading, time

from lightbus.compat import Settings, TaskApp
from tests.faults.test_forks import Forks
from lightbus import Bus

app, url, file = sys.argv[1:]
bus, tasks = Bus(app, url=url), TaskApp(Settings(broker_url=url, result_backend="rpc://", moved=frozenset({"t"})))
sent = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def say(what):
    bus.fire(Forks.said(what=what))
    os.write(sent, (what + "\\n").encode())


def work(name):
    for number in range(3):
        say(f"{name}.{number}")
    assert bus.client(Forks).echo(what=name) == name
    tasks.send_task("t")


def go_on(name):
    for number in itertools.count():
        if stop.is_set():
            return
        say(f"{name}.{number}")
        bus.client(Forks).echo(what=name)
        tasks.send_task("t")


work("before")
stop = threading.Event()
threads = [threading.Thread(target=go_on, args=(f"thread{n}",)) for n in range(2)]
for thread in threads:
    thread.start()
children = []
for number in range(8):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(f"child{number}")
            bus.close()
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
    time.sleep(0.01)
more = [multiprocessing.get_context("fork").Process(target=work, args=(f"more{n}",)) for n in range(3)]
for process in more:
    process.start()
deadline = time.monotonic() + 90
codes = []
while children and time.monotonic() < deadline:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.remove(pid)
            codes.append(status)
    time.sleep(0.02)
for process in more:
    process.join(max(0.1, deadline - time.monotonic()))
    codes.append(process.exitcode)
stop.set()
for thread in threads:
    thread.join(60)
work("after")
tasks.close()
bus.close()
print("codes", codes, "hung", len(children), flush=True)
sys.exit(bool(children or any(codes) or any(thread.is_alive() for thread in threads)))
"""


def test_a_fork_while_other_threads_publish_mixes_nothing_up(
    tmp_path: Path, broker_url: str, prefix: str, processes: Processes
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    bus = Bus(prefix, url=broker_url)
    bus.serve(OurForks())
    heard: list[tuple[str, bool]] = []

    def hear(event: Forks.said) -> None:
        delivery = current_delivery()
        assert delivery is not None
        heard.append((event.what, delivery.redelivered))

    bus.on(Forks.said, name="hear")(hear)
    with working(bus, options=WorkerOptions(threads=4)):
        program = processes.start(
            "python", "program.py", prefix, broker_url, str(tmp_path / "sent"), name="program", folder=tmp_path
        )
        assert program.wait(150) == 0, program.read_log()
        sent = (tmp_path / "sent").read_text().split()
        wait_for(lambda: {what for what, _ in heard} >= set(sent), 30, "all that was said", [program.log])
    firsts = [what for what, redelivered in heard if not redelivered]
    assert sorted(set(firsts)) == sorted(firsts), "an unflagged repeat"
    assert len(set(sent)) == len(sent)
    assert {what for what, _ in heard} == set(sent), "a ghost"
    assert {what.partition(".")[0] for what in sent} >= {
        "before", "after", "thread0", "thread1", *(f"child{n}" for n in range(8)), *(f"more{n}" for n in range(3)),
    }  # fmt: skip
