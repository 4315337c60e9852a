"""`lightbus contract` in a project: what is exported, checked, and pulled by another one."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Ended, Project
from tests.processes import wait_for


def test_a_release_is_exported_checked_and_called_from_a_pulled_contract(project: Project, prefix: str) -> None:
    assert project.run("contract", "export", "-A", "shop", "-o", "released.json").code == 0
    same = project.run("contract", "check", "--against", "released.json", "-A", "shop")
    assert same.code == 0
    assert same.out == f"{prefix}.tickets 1.0 to 1.0: compatible\n"
    asyncapi = project.run("contract", "export", "--asyncapi", "--api", f"{prefix}.tickets", "-A", "shop").json()
    assert asyncapi["info"] == {"title": f"{prefix}.tickets", "version": "1.0"}

    # Another project: it has the file and not the code.
    assert project.run("contract", "pull", "released.json", "-o", "pulled.py").code == 0
    project.write("caller.py", f"from pulled import Tickets\nfrom lightbus import Bus\nbus = Bus('{prefix}-caller')\n")
    project.worker("-A", "shop", "-c", "1")
    called = project.run("call", f"{prefix}.tickets.status", "id=7", "-A", "caller")
    assert called.out == "ticket 7 is open\n"
    refused = project.run("call", f"{prefix}.tickets.status", "id=404", "-A", "caller")
    assert "NotFound" in refused.sentence

    contracts = (project.folder / "contracts.py").read_text()
    project.write("contracts.py", contracts.replace("id: int\n        email", "id: str\n        email"))
    breaking = project.run("contract", "check", "--against", "released.json", "-A", "shop")
    assert breaking.code == 1
    assert breaking.out.splitlines() == [
        f"MAJOR  {prefix}.tickets.created(id): has another type",
        f"{prefix}.tickets 1.0 to 1.0: breaking, and the major version was not raised",
    ]
    listed = project.run("contract", "diff", "released.json", "-A", "shop", "--json")
    assert listed.code == 0
    assert [change["level"] for change in listed.json()["apis"][0]["changes"]] == ["major"]
    project.write("none.json", json.dumps({"lightbus_contract": 1, "apis": []}))
    for arguments in (["pull", "none.json"], ["pull", "none.json", "--api", "a.b"]):
        assert project.run("contract", *arguments).code == 2


@pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)  # asking is tested on each
def test_what_runs_is_checked_against_pulled_and_called(each_broker: Project, prefix: str) -> None:
    project, name = each_broker, f"{prefix}.tickets"
    nobody = project.run("contract", "check", "--against", "LIVE", "-A", "shop")
    assert nobody.code == 1
    assert nobody.out == f"{name}: no worker serves it now, so there is nothing to compare\n"
    worker = project.worker("-A", "shop", "-c", "1")

    def live(command: str, *arguments: str) -> Ended:
        """Once the worker has answered in time."""
        ended = [Ended(1, "", "")]

        def answered() -> bool:
            ended[0] = project.run("contract", command, *arguments)
            return "no worker serves" not in ended[0].out and "no worker announces" not in ended[0].err

        wait_for(answered, 40, "an answer", [worker.log])
        return ended[0]

    same = live("check", "--against", "LIVE", "-A", "shop")
    assert (same.code, same.out) == (0, f"served here: {name} 1.0 to 1.0: compatible\n")

    # Another project: it has the broker, and neither the code nor a file.
    pulled = live("pull", "LIVE", "--api", name, "-o", "pulled.py", "--wait", "2")
    assert pulled.code == 0, pulled.err
    project.write("caller.py", f"from pulled import Tickets\nfrom lightbus import Bus\nbus = Bus('{prefix}-caller')\n")
    assert project.run("call", f"{name}.status", "id=7", "-A", "caller").out == "ticket 7 is open\n"
    used = live("check", "--against", "LIVE", "-A", "caller", "--json").json()
    assert (used["ok"], [one["verdict"] for one in used["used"]]) == (True, ["compatible"])

    source = (project.folder / "pulled.py").read_text()
    project.write("pulled.py", source.replace('version="1.0"', 'version="1.3"'))
    newer = live("check", "--against", "LIVE", "-A", "caller")
    assert newer.code == 1
    assert newer.out == (
        f"used here: {name} 1.3 to 1.0: what runs is older than what this app was written against: "
        "deploy its owner first\n"
    )
