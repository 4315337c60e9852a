from __future__ import annotations

from typing import Any

import pytest

from lightbus.compat import MaxRetriesExceededError, RemoteTaskError, TaskRevokedError, states
from lightbus.compat.exceptions import EncodeError
from lightbus.compat.results import (
    ResultDocument,
    decode_result,
    encode_result,
    exception_from,
    exception_triple,
    safe_repr,
)
from lightbus.core.errors import DecodeError
from tests.compat.bench import golden

RESULTS = {one["name"]: one["document"] for one in golden("results")}


@pytest.mark.parametrize("name", RESULTS)
def test_a_celery_result_read_and_written_again_has_the_same_bytes(name: str) -> None:
    data = RESULTS[name].encode("utf-8")

    assert encode_result(decode_result(data)) == data


def test_a_failure_reads_as_its_exception_and_text() -> None:
    document = decode_result(RESULTS["builtin failure"].encode())

    assert document.status == states.FAILURE
    assert isinstance(document.exception, ValueError)
    assert document.exception.args == ("wrong", 3)
    assert document.traceback is not None
    assert "ValueError" in document.traceback
    assert document.date_done is not None
    assert document.date_done.endswith("+00:00")


def test_a_revoked_task_reads_as_compats_own_class() -> None:
    error = decode_result(RESULTS["revoked"].encode()).exception

    assert isinstance(error, TaskRevokedError)
    assert error.args == ("expired",)


def test_a_class_that_is_not_known_is_named_but_never_imported() -> None:
    error = exception_from({"exc_type": "Outer.Refused", "exc_message": ["no", 7], "exc_module": "this.is_nowhere"})

    assert isinstance(error, RemoteTaskError)
    assert type(error).__name__ == "Refused"
    assert (error.exc_type, error.exc_module, error.args) == ("Outer.Refused", "this.is_nowhere", ("no", 7))
    assert exception_triple(error) == {
        "exc_type": "Outer.Refused", "exc_message": ["no", 7], "exc_module": "this.is_nowhere",
    }  # fmt: skip


@pytest.mark.parametrize(
    "triple",
    [
        {"exc_type": "SystemExit", "exc_message": [1], "exc_module": "builtins"},
        {"exc_type": "KeyboardInterrupt", "exc_message": [], "exc_module": "builtins"},
        {"exc_type": "system", "exc_message": "rm", "exc_module": "os"},
        {"exc_type": "eval", "exc_message": ["1"], "exc_module": "builtins"},
        {"exc_type": "UnicodeDecodeError", "exc_message": ["one"], "exc_module": "builtins"},
        {"exc_type": "", "exc_message": None},
        {"exc_type": 5},
        "no triple",
        None,
    ],
)
def test_a_hostile_triple_becomes_a_remote_task_error(triple: Any) -> None:
    assert isinstance(exception_from(triple), RemoteTaskError)


def test_compats_exceptions_carry_the_names_of_their_celery_twins() -> None:
    import celery.exceptions

    triple = exception_triple(MaxRetriesExceededError("enough"))

    assert triple == {
        "exc_type": "MaxRetriesExceededError", "exc_message": ["enough"], "exc_module": "celery.exceptions",
    }  # fmt: skip
    assert hasattr(celery.exceptions, "MaxRetriesExceededError")
    assert isinstance(exception_from(triple), MaxRetriesExceededError)


def test_arguments_without_a_json_form_are_printed() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    message = exception_triple(ValueError({1, 2}, Bad(), "text"))["exc_message"]

    assert message == ["{1, 2}", "<Bad object, its repr failed with RuntimeError>", "text"]
    assert len(safe_repr("x" * 5000)) == 1024


def test_a_result_that_cannot_be_written_or_is_too_large_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="'i' cannot be written as JSON"):
        encode_result(ResultDocument(task_id="i", status=states.SUCCESS, result=object()))
    with pytest.raises(EncodeError, match="at most 100 are kept"):
        encode_result(ResultDocument(task_id="i", status=states.SUCCESS, result="x" * 200), max_bytes=100)


@pytest.mark.parametrize(
    "data, named",
    [
        (b"\x00celery-compressed\x00application/x-gzip\x00...", "result_compression"),
        (b"\x80\x04pickle", "result_serializer"),
        (b"[]", "status"),
        (b'{"status": 5}', "status"),
    ],
)
def test_what_is_no_result_is_refused_with_what_to_set(data: bytes, named: str) -> None:
    with pytest.raises(DecodeError, match=named):
        decode_result(data)
