"""What the documentation shows is what happens: every block of README.md and docs/ runs, and what it names exists.

A page is run from top to bottom by a process of its own, in an empty folder with no other broker than the embedded
one. `python tests/test_docs.py README.md` does the same by hand. What a block is, its first line or its language says:

- `# shop/bus.py` as first line: a file, written into the folder; something further down has to use it.
- python: executed; the blocks of a page share one namespace.
- console, bash: each `$ command` is run, and the lines below it are its output, where `...` stands for anything.
  `lightbus worker`, `lightbus tail`, `lightbus beat` and `celery` workers stay running.
- toml, ini, json: parsed. text: for drawings; may not look like code.
- after `<!-- file: path -->`: equal to that file of the project.
- after `<!-- printed by: command -->`: waited for in the output of that worker, which runs further up. When it begins
  with `^C`, the worker is interrupted first, and has to end with exit code 0.
- after `<!-- not run: reason -->`: left alone; NOT_RUN lists them all.
"""

from __future__ import annotations

import configparser
import contextlib
import doctest
import importlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scheduler")]  # for the process that runs a page

import pytest  # noqa: E402

#: Every block that is not run, as page and reason. A new one has to be added here, so that somebody looks at it.
NOT_RUN = {
    ("README.md", "it builds an environment of its own"),
    ("README.md", "it installs packages"),
    ("docs/howto/choose-a-broker.md", "it needs a server"),
    ("docs/howto/run-a-worker.md", "it needs systemd"),
    ("docs/howto/tracing.md", "it installs packages"),
    ("docs/howto/web-servers.md", "it needs gunicorn"),
    ("docs/migration/beat.md", "it needs a Django project"),
    ("docs/migration/beat.md", "it needs the file of a beat that ran"),
    ("docs/migration/index.md", "it installs packages"),
    ("docs/tutorial/first-bus.md", "it installs packages"),
}
PAGE_SECONDS = 50.0
OUTPUT_SECONDS = 15.0

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"<!-- (not run|file|printed by): (.+?) -->\s*$")
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
_STAYS = re.compile(r"(lightbus (worker|tail|beat(?!.*--check))|celery .*\bworker)\b(?!.*--help)")
_LOOKS_LIKE_CODE = re.compile(r"^\s*(\$ |>>> |import |from \w+ import |def |class |@\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of text."""

    page: str
    line: int
    language: str
    text: str
    marker: str
    argument: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    return ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        marker = _MARKER.search(text[: fence.start()])
        kind, argument = marker.groups() if marker else ("", "")
        indent = fence["indent"]
        lines = [line.removeprefix(indent) for line in fence["text"].splitlines(keepends=True)]
        line = text.count("\n", 0, fence.start("text")) + 1
        found.append(Block(page, line, fence["language"], "".join(lines), kind, argument))
    return found


# Running a page, in its own process and folder


class PageRun:
    """The state that the blocks of a page share: the folder, the namespace, and the workers that run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "page"}
        self.files: list[str] = []
        self.commands: list[str] = []
        self.running: list[Running] = []
        self.exit_code = 0
        bin_folder = folder / ".bin"
        bin_folder.mkdir()
        modules = {"lightbus": "-m lightbus.cli", "celery": "-m celery", "python": "", "pytest": "-m pytest"}
        for name, module in modules.items():
            shim = bin_folder / name
            shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            shim.chmod(0o755)
        os.environ.update(
            PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            PYTHONPATH=os.pathsep.join((str(folder), str(ROOT), str(ROOT / "scheduler"))),
            PYTHONUNBUFFERED="1",
            PYTHONDONTWRITEBYTECODE="",  # what was imported is told by its compiled file
            COLUMNS="100",
            NO_COLOR="1",
            TERM="dumb",
        )  # fmt: skip
        os.environ.pop("LIGHTBUS_URL", None)
        sys.path.insert(0, str(folder))
        os.chdir(folder)

    def run(self, block: Block) -> None:
        """Raises AssertionError, or what the block raises."""
        if block.marker == "not run":
            return
        if block.marker == "file":
            assert block.text == (ROOT / block.argument).read_text(encoding="utf-8"), f"differs from {block.argument}"
            return
        if block.marker == "printed by":
            (running,) = [one for one in self.running if one.command == block.argument]
            if block.text.startswith("^C\n"):
                self.running.remove(running)
                running.interrupt()
                running.expect(block.text.removeprefix("^C\n"))
                running.wait()
            else:
                running.expect(f"...{block.text.strip()}...")
            return
        file = _FILE.match(block.text)
        if file is not None:
            self._write(file[1], block)
        match block.language:
            case "python" if file is None:
                # Blank lines in front: a traceback then names the line of the page.
                code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
                exec(code, self.namespace)
            case "python":
                compile(block.text, str(block), "exec")
            case "console" | "bash":
                self._console(block)
            case "json":
                json.loads(block.text)
            case "toml":
                importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(block.text)
            case "ini":
                parser = configparser.ConfigParser(strict=False, interpolation=None)
                parser.optionxform = str  # type: ignore[assignment]
                parser.read_string(block.text)
                assert parser.sections(), "an ini block has a section"
            case "text":
                assert not _LOOKS_LIKE_CODE.search(block.text), "text is for drawings: say which language this is"
            case other:
                raise AssertionError(f"nobody knows how to run {other!r}")

    def end(self) -> None:
        """Stop what runs, and object to files that nothing used."""
        while self.running:
            self.running.pop().stop()
        for name in [name for name in self.files if name.endswith(".py")]:
            module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            path = self.folder / name
            imported = module in sys.modules or any((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))
            named = any(name in command or module in command for command in self.commands)
            assert imported or named, f"the file {name} is shown, and nothing on the page uses it"

    def _write(self, name: str, block: Block) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        self.files.append(name)
        importlib.invalidate_caches()

    def _console(self, block: Block) -> None:
        for command, wanted in commands_of(block.text):
            self.commands.append(command)
            if command == "echo $?":
                if self.running and self.running[-1].command == self.commands[-2]:  # a worker that did not start
                    self.exit_code = self.running.pop().end()
                compare(command, wanted, f"{self.exit_code}\n")
            elif _STAYS.search(command):
                running = Running(command)
                self.running.append(running)
                running.expect(wanted)
            else:
                done = subprocess.run(
                    command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL, timeout=30, check=False,
                )  # fmt: skip
                self.exit_code = done.returncode
                compare(command, wanted, done.stdout)
                asked = f"{command}\n" in block.text and "$ echo $?" in block.text
                assert done.returncode == 0 or asked, f"$ {command}\nended with {done.returncode}:\n{done.stdout}"


class Running:
    """A command that stays running; what it prints is collected."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._output = ""
        self._from = 0
        words = shlex.split(command)
        assigned = list(itertools.takewhile(lambda word: re.match(r"[A-Z_]+=", word), words))
        self._process = subprocess.Popen(
            words[len(assigned) :], env=os.environ | dict(word.split("=", 1) for word in assigned), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output += line

    def expect(self, wanted: str) -> None:
        """Wait until the output since the last call is the one that is shown."""
        deadline = time.monotonic() + OUTPUT_SECONDS
        while wanted.strip() and not self._has_printed(wanted):
            if time.monotonic() > deadline or self._process.poll() not in (None, 0):
                self._reader.join(1)
                compare(self.command, wanted, self._output[self._from :])
                break
            time.sleep(0.02)
        self._from = len(self._output)

    def _has_printed(self, wanted: str) -> bool:
        got = self._output[self._from :]
        return bool(got.strip()) and matches(wanted, got)

    def interrupt(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Raises AssertionError: it does not end, or not with exit code 0."""
        exit_code = self.end()
        stopped = exit_code == 0 or (exit_code == 1 and self.command.startswith("celery"))  # Celery's way after Ctrl-C
        assert stopped, f"$ {self.command}\nended with {exit_code}:\n{self._output}"

    def end(self) -> int:
        """The exit code, once it has ended. Raises AssertionError: it does not."""
        try:
            exit_code = self._process.wait(OUTPUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"$ {self.command}\ndoes not stop:\n{self._output}") from None
        self._reader.join(5)
        return exit_code


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Each command with the output that is shown below it. A backslash continues a command on the next line."""
    command, output = "", ""
    for line in text.splitlines(keepends=True):
        if command.endswith("\\"):
            command = command[:-1].rstrip() + " " + line.strip()
        elif line.startswith("$ "):
            if command:
                yield command, output
            command, output = line.removeprefix("$ ").strip(), ""
        else:
            assert command, f"output without a command: {line!r}"
            output += line
    if command:
        yield command, output


def matches(wanted: str, got: str) -> bool:
    """As doctest: `...` stands for anything, differences in white space do not count. No output shown: any will do."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return not wanted.strip() or doctest.OutputChecker().check_output(wanted, got.rstrip() + "\n", flags)


def compare(command: str, wanted: str, got: str) -> None:
    assert matches(wanted, got), f"$ {command}\n--- shown:\n{wanted}--- printed:\n{got}"


def run_page(page: str, folder: Path) -> int:
    """Run a page; prints what went wrong. Its exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # by way of `finally`
    run = PageRun(folder)
    try:
        for block in blocks_of(page):
            try:
                run.run(block)
            except BaseException:  # noqa: BLE001 - whatever a block raises is the answer
                print(f"{block} failed", file=sys.stderr)
                traceback.print_exc()
                return 1
        run.end()
    except AssertionError as error:
        print(f"{page}: {error}", file=sys.stderr)
        return 1
    finally:
        for running in run.running:
            with contextlib.suppress(AssertionError):
                running.stop()
    return 0


# The tests


@pytest.mark.parametrize("page", [page for page in pages() if blocks_of(page)])
def test_every_block_of_a_page_runs_as_it_is_shown(page: str, tmp_path: Path) -> None:
    # Pages show tasks moving: this file is left out where one of these is not there.
    import celery  # noqa: F401

    import lightbus.compat  # noqa: F401

    folder = tmp_path / "page"
    folder.mkdir()
    done = subprocess.Popen(
        [sys.executable, __file__, page, str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = done.communicate(timeout=PAGE_SECONDS)
    finally:
        done.terminate()  # it then stops what it has started
        done.wait(2 * OUTPUT_SECONDS)
    assert done.returncode == 0, output


def test_only_listed_blocks_are_not_run() -> None:
    found = {(block.page, block.argument) for page in pages() for block in blocks_of(page) if block.marker == "not run"}
    assert found == NOT_RUN


@pytest.mark.parametrize(
    "wanted, got, same",
    [
        ("a ... c\n", "a b c\n", True),
        ("a ... c\n", "a b d\n", False),
        ("", "whatever\n", True),
        ("one\n", "", False),
        ("one\ntwo\n", "one\n  two", True),
    ],
)
def test_shown_output_is_compared_with_ellipses(wanted: str, got: str, same: bool) -> None:
    assert matches(wanted, got) is same


@pytest.mark.parametrize(
    "block, problem",
    [
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```console\n$ echo no\nyes\n```\n", "--- printed:\nno"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```toml\na = \n```\n", "TOMLDecodeError"),
        ("```text\n$ rm -rf\n```\n", "say which language"),
        ("```\nwhat\n```\n", "nobody knows"),
        ("```python\n# a/b.py\nx = 1\n```\n", "nothing on the page uses it"),
        ("<!-- file: LICENSE -->\n```text\nmine\n```\n", "differs from LICENSE"),
    ],
)
def test_a_block_that_does_not_do_what_it_shows_is_found(block: str, problem: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(block)
    folder = tmp_path / "folder"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, __file__, str(page), str(folder)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert problem in done.stderr


# What the documentation names

NAMED_PAGES = [*pages(), "CONTRIBUTING.md", "CHANGELOG.md"]
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:tests|docs|lightbus|scheduler|examples|benchmarks|\.ci)/[\w./-]*(?:\.\w+|/)")


def prose_of(page: str) -> str:
    return _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NAMED_PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for target in _LINK.findall(prose_of(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert broken == []


@pytest.fixture(scope="module")
def test_names() -> set[str]:
    """Names of test functions and classes, of the suite and of the transport contract."""
    names: set[str] = set()
    for folder in (ROOT / "tests", ROOT / "lightbus" / "testing"):
        for path in folder.rglob("*.py"):
            names.update(re.findall(r"^ *(?:def|class) ([tT]est\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return names


@pytest.mark.parametrize("page", NAMED_PAGES)
def test_tests_and_files_that_are_named_exist(page: str, test_names: set[str]) -> None:
    codes: Sequence[str] = _CODE.findall(prose_of(page))
    tests = {name for code in codes for name in re.findall(r"(?<![\w/])test_\w+(?!\.py)\b", code) if code == name}
    paths = {code for code in codes if _PATH.fullmatch(code)}
    assert sorted(tests - test_names) == []
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


# Tables


def table_of(page: str, first: str) -> list[list[str]]:
    """Rows of the table whose first heading is `first`, its head included."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_each_promise_names_a_test_that_proves_it(test_names: set[str]) -> None:
    head, *rows = table_of("docs/explanation/promises.md", "Promise")
    assert len(head) == 2
    proofs = {promise: re.findall(r"`(test_\w+)`", tests) for promise, tests in rows}
    assert [promise for promise, tests in proofs.items() if not tests] == []
    assert sorted({name for tests in proofs.values() for name in tests} - test_names) == []
    assert len(proofs) == len(rows) > 15


def test_the_capabilities_page_says_what_the_transports_say() -> None:
    from dataclasses import fields

    from lightbus.drivers import open_transport
    from lightbus.ports import Capabilities

    urls = ("amqp://127.0.0.1//", "redis://127.0.0.1/0", "sqlite:///unused.db", "memory://")
    values = [open_transport(url).capabilities for url in urls]  # connects to nothing yet

    def shown(value: object) -> str:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:g}"

    head, *rows = table_of("docs/reference/capabilities.md", "Capability")
    assert head[1:] == [one.name for one in values]
    names = [field.name for field in fields(Capabilities) if field.name != "name"]
    assert rows == [[f"`{name}`", *(shown(getattr(one, name)) for one in values)] for name in names]


def test_the_errors_page_lists_every_error() -> None:
    from lightbus.core import errors

    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    names = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_exit_codes_page_lists_every_code() -> None:
    from lightbus.core import exitcodes

    shown = {row[0] for row in table_of("docs/reference/cli.md", "Exit code")[1:]}
    codes = {value for name, value in vars(exitcodes).items() if name.startswith("EXIT_") and isinstance(value, int)}
    assert shown == {str(code) for code in codes}


def test_the_configuration_page_lists_every_celery_setting_that_is_understood() -> None:
    from lightbus.compat import settings

    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert [name for name in settings._TABLE if f"`{name}`" not in page] == []


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if len(sys.argv) == 2:
            import tempfile

            sys.argv.append(stack.enter_context(tempfile.TemporaryDirectory(prefix="lightbus-docs-")))
        sys.exit(run_page(sys.argv[1], Path(sys.argv[2])))
