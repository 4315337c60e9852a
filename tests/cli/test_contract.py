"""`lightbus contract` in a project: what is exported, checked, and pulled by another one."""

from __future__ import annotations

import json

from tests.cli.conftest import Project


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
