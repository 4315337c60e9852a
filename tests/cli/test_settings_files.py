"""lightbus.toml and [tool.lightbus] in pyproject.toml: the same settings, from one of the two."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightbus.cli.settings_files import settings_files
from lightbus.core.errors import ConfigError
from tests.cli.conftest import Project

ENTRY = """
[{table}]
cron = "0 6 * * mon"
tz = "Europe/Lisbon"
event = "{prefix}.tickets.created"
fields = {{ id = 1 }}
"""


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def test_each_setting_may_stand_in_either_file_of_the_nearest_folder(tmp_path: Path) -> None:
    written(
        tmp_path,
        lightbus='app = "shop"\n[schedule.one]\nat = 1\n',
        pyproject='[tool.lightbus]\nmiddleware = ["a:b"]\n[tool.lightbus.schedule.two]\nat = 2\n[tool.other]\nx = 1\n',
    )
    below = tmp_path / "src" / "shop"
    below.mkdir(parents=True)

    files = settings_files(below)

    assert files.folder == tmp_path
    assert (files.texts("app"), files.texts("middleware")) == (("shop",), ("a:b",))
    entries = files.entries("schedule")
    assert {name: (plain, table.called(f"schedule.{name}")) for name, (plain, table) in entries.items()} == {
        "one": ({"at": 1}, "[schedule.one]"),
        "two": ({"at": 2}, "[tool.lightbus.schedule.two]"),
    }
    assert {name: path.name for name, path in files.origins().items()} == {
        "app": "lightbus.toml", "schedule.one": "lightbus.toml",
        "middleware": "pyproject.toml", "schedule.two": "pyproject.toml",
    }  # fmt: skip


def test_a_nearer_folder_hides_what_stands_above_it(tmp_path: Path) -> None:
    written(tmp_path, lightbus='app = "all"\n')
    near = tmp_path / "near"
    near.mkdir()
    written(near, pyproject="[project]\nname = 'near'\n")

    assert settings_files(near).texts("app") == ()
    assert settings_files(tmp_path).texts("app") == ("all",)


@pytest.mark.parametrize(
    "lightbus, pyproject, words",
    [
        ('app = "a"', '[tool.lightbus]\napp = "a"', ["'app' stands in", "lightbus.toml", "pyproject.toml"]),
        ('middleware = "a:b"', '[tool.lightbus]\nmiddleware = "c:d"', ["'middleware' stands in"]),
        (
            "[schedule.x]\nat = 1",
            "[tool.lightbus.schedule.x]\nat = 1",
            ["'schedule.x' stands in", "lightbus.toml", "pyproject.toml", "remove it from one of them"],
        ),
        ("app = 7", "", ["lightbus.toml", "app must be a text", "7"]),
        ("schedule = 7", "", ["lightbus.toml", "[schedule] must hold tables", "7"]),
        ("", "[tool.lightbus]\nschedule = {x = 1}", ["pyproject.toml", "[tool.lightbus.schedule] must hold tables"]),
        ("[shedule.x]\nat = 1", "", ["lightbus.toml", "'shedule'", "did you mean 'schedule'?"]),
        ("", "[tool.lightbus]\nap = 'x'", ["pyproject.toml", "'ap'", "did you mean 'app'?"]),
        ("[tool.lightbus]\napp = 'x'", "", ["lightbus.toml", "'tool'", "no prefix"]),
        ("app = ", "", ["lightbus.toml is no TOML"]),
        ("", "tool = 7", ["pyproject.toml", "[tool.lightbus] must be a table"]),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_name(
    tmp_path: Path, lightbus: str, pyproject: str, words: list[str]
) -> None:
    written(tmp_path, lightbus=lightbus, pyproject=pyproject)

    with pytest.raises(ConfigError) as refused:
        settings_files(tmp_path).origins()

    assert all(word in str(refused.value) for word in words), refused.value


def test_the_commands_take_app_and_schedule_from_lightbus_toml_and_say_so(project: Project, prefix: str) -> None:
    project.write("lightbus.toml", 'app = "shop"\n' + ENTRY.format(table="schedule.weekly", prefix=prefix))

    checked = project.run("beat", "--check")
    assert checked.code == 0, checked.err
    assert f"weekly: event {prefix}.tickets.created" in checked.err
    listed = project.run("schedule", "ls", "--json")
    assert [row["source"] for row in listed.json()] == ["lightbus.toml, not yet seen by a beat"]
    settings = project.run("doctor", "--json").json()["settings"]
    file = str(project.folder / "lightbus.toml")
    assert settings == {"app": file, "schedule.weekly": file}
    assert project.run("doctor", "-A", "shop", "--json").json()["settings"]["app"] == "-A"

    project.write("pyproject.toml", ENTRY.format(table="tool.lightbus.schedule.weekly", prefix=prefix))
    refused = project.run("beat", "--check")
    assert refused.code == 78
    assert "'schedule.weekly' stands in" in refused.sentence
    project.write("pyproject.toml", "")
    project.write("lightbus.toml", 'app = "shop"\n[schedule.weekly]\ncron = "0 25 * * *"\nevent = "x"\n')
    refused = project.run("beat", "--check")
    assert refused.code == 78
    assert "lightbus.toml: [schedule.weekly]" in refused.sentence
    assert "hour cannot be '25'" in refused.sentence
