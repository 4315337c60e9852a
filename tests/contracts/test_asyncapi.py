"""The AsyncAPI documents of contracts, judged by AsyncAPI's own parser from the npm registry."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lightbus.contracts.asyncapi import asyncapi_of
from lightbus.contracts.document import document_of
from tests.node import INSTALL_SECONDS, installed

from .samples import Shop

PARSER = "@asyncapi/parser@3.6.6"
#: Prints what the parser finds in each document, as JSON; severity 0 is an error, 1 a warning.
JUDGE = """
const { Parser } = require('@asyncapi/parser');
let text = '';
process.stdin.on('data', part => text += part).on('end', async () => {
  const verdicts = [];
  for (const one of JSON.parse(text)) {
    const { document, diagnostics } = await new Parser().parse(one);
    const found = diagnostics.filter(one => one.severity < 2).map(one => one.path.join('.') + ': ' + one.message);
    verdicts.push({ parsed: !!document, found });
  }
  console.log(JSON.stringify(verdicts));
});
"""


@pytest.fixture(scope="module")
def modules() -> Path:
    return installed(PARSER)


def judged(modules: Path, *documents: object) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["node", "-e", JUDGE], input=json.dumps(documents), capture_output=True, text=True, check=True,
        timeout=250, env={**os.environ, "NODE_PATH": str(modules)},
    )  # fmt: skip
    verdicts: list[dict[str, Any]] = json.loads(done.stdout)
    return verdicts


@pytest.mark.timeout(INSTALL_SECONDS + 50)  # the parser is installed when it is not there yet
def test_asyncapis_own_parser_accepts_the_document_and_refuses_a_broken_one(modules: Path) -> None:
    document = asyncapi_of(document_of([Shop])["apis"][0])
    broken = copy.deepcopy(document)
    broken["operations"]["fire.shipped"]["action"] = "shout"

    good, bad = judged(modules, document, broken)

    assert good == {"parsed": True, "found": []}
    assert bad["found"]


def test_events_are_sent_and_calls_received_at_the_addresses_of_the_wire() -> None:
    document = asyncapi_of(document_of([Shop])["apis"][0])

    assert document["channels"]["shipped"]["address"] == "sample.shop.shipped.v1"
    assert document["channels"]["calls"]["address"] == "lightbus.rpc.sample.shop.v1"
    assert document["operations"]["fire.shipped"]["action"] == "send"
    assert document["operations"]["serve.quote"]["action"] == "receive"
    assert document["operations"]["serve.quote"]["reply"]["channel"] == {"$ref": "#/channels/answers"}
