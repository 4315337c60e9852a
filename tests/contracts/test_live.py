"""An app's contracts against those that workers announce."""

from __future__ import annotations

from typing import Any

import pytest

from lightbus import ConfigError
from lightbus.contracts.document import Json
from lightbus.contracts.live import check_live, live_document, newest_of_each
from lightbus.core.description import Description, ServedApi

from .test_contracts import call, documented

ONE, TWO = "class e(Event): a: int", "class e(Event):\n    a: int\n    b: int = 0"


def announced(*documents: Json) -> Json:
    """The live document of one worker for each."""
    workers = []
    for number, document in enumerate(documents):
        (contract,) = document["apis"]
        served = ServedApi(name=contract["name"], version=contract["version"], queue="q", contract=contract)
        workers.append(
            Description(
                app="owner", worker=str(number), host="h", pid=number, lightbus="0", started_at="now", apis=(served,)
            )
        )
    return live_document(workers)


def test_what_the_app_serves_may_take_the_place_of_what_runs_when_its_version_says_what_changed() -> None:
    raised = check_live(documented(TWO, "1.1"), {"t.api"}, announced(documented(ONE)))
    forgotten = check_live(documented(TWO, "1.0"), {"t.api"}, announced(documented(ONE)))
    older = check_live(documented(ONE, "1.0"), {"t.api"}, announced(documented(TWO, "1.1")))

    assert raised.is_fine
    assert [one.new_version for one in raised.owned] == ["1.1"]
    assert not forgotten.is_fine
    assert not older.is_fine
    assert raised.used == ()


def test_what_the_app_uses_must_be_answered_by_what_runs() -> None:
    newer = check_live(documented(ONE, "1.0"), (), announced(documented(TWO, "1.1")))
    older = check_live(documented(TWO, "1.1"), (), announced(documented(ONE, "1.0")))
    other = check_live(documented(ONE, "1.0"), (), announced(documented(TWO, "2.0")))
    both = check_live(documented(ONE, "1.0"), (), announced(documented(TWO, "2.0"), documented(ONE, "1.0")))

    assert newer.is_fine
    assert not older.is_fine
    assert older.used[0].is_lower
    assert other.unserved == (("t.api", "1.0", "2.0"),)
    assert not other.is_fine
    assert both.is_fine
    assert [one.new_version for one in both.used] == ["1.0"]


def test_while_versions_take_turns_each_one_that_runs_counts() -> None:
    live = announced(documented(ONE, "1.0"), documented(TWO, "1.1"), documented(ONE, "1.0"))

    assert [api["version"] for api in live["apis"]] == ["1.0", "1.1"]
    assert [api["version"] for api in newest_of_each(live)["apis"]] == ["1.1"]
    assert not check_live(documented(TWO, "1.1"), (), live).is_fine


def test_an_api_that_nobody_serves_is_named_and_not_compared() -> None:
    checked = check_live(documented(call("")), (), announced(documented(ONE, name="t.other")))

    assert checked.absent == ("t.api",)
    assert (checked.owned, checked.used) == ((), ())


@pytest.mark.parametrize(
    "field, value",
    [("name", 'x"): import os #'), ("version", '1.0") #'), ("version", 7)],
    ids=["name", "version", "type"],
)
def test_a_contract_that_nobody_can_have_declared_is_refused(field: str, value: Any) -> None:
    document = documented(ONE)
    document["apis"][0][field] = value
    served = ServedApi(name="t.api", version="1.0", queue="q", contract=document["apis"][0])
    worker = Description(app="a", worker="1", host="h", pid=1, lightbus="0", started_at="now", apis=(served,))

    with pytest.raises(ConfigError, match="what the workers announce"):
        live_document([worker])
