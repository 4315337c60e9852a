"""Which of Celery's integration tests come out otherwise on a Lightbus worker, each with its reason.

The lists are strict: a test that is not here has to pass, one that is here has to fail, and has to exist.
"""

from __future__ import annotations

from typing import NamedTuple

#: Files that are not collected, because they import what Celery's tests need beside Celery itself.
LEFT_OUT = {
    "test_backend.py": "Azure's storage, which no private server stands in for; it reads and writes without a worker",
    "test_security.py": "the package cryptography; its one test is expected to fail on Celery's worker too",
}

MEMORY = "looks into the memory of Celery's worker, which runs in the test's own process; Lightbus's is another process"
SIGNAL = (
    "connects to `task_received` in its own process, where Celery's worker sends it; Lightbus's sends it in its own, "
    "held by test_receivers_hear_what_they_hear_on_celerys_worker"
)


class Known(NamedTuple):
    test: str  #: as pytest names it, from `t/integration` on
    reason: str
    broker: str = ""  #: redis or rabbitmq; on both when empty
    sometimes: bool = False  #: it depends on the moment whether it passes


def each(reason: str, file: str, names: str) -> list[Known]:
    return [Known(f"{file}::{name}", reason) for name in names.split()]


KNOWN: dict[str, list[Known]] = {
    "5.7.0": [
        *each(MEMORY, "test_inspect.py::test_Inspect", "test_stats test_hello_stamps_received_revoked_ids_locally"),
        *each(
            MEMORY, "test_tasks.py::test_tasks",
            "test_send_task_without_ignore_result_uses_task_ignore_result "
            "test_send_task_without_ignore_result_stores_result test_revoked_by_headers_simple_canvas",
        ),
        *each(
            MEMORY, "test_tasks.py::test_task_redis_result_backend",
            "test_retry_preserves_ignore_result_false test_retry_preserves_ignore_result_true",
        ),
        *each(
            SIGNAL, "test_canvas.py::test_stamping_mechanism",
            "test_task_received_has_access_to_stamps test_linking_stamped_sig test_err_linking_stamped_sig",
        ),
        *each(
            SIGNAL, "test_tasks.py::test_task_replacement",
            "test_replaced_task_nesting_level_0 test_replaced_task_nesting_level_1 test_replaced_task_nesting_chain",
        ),
        *each(
            SIGNAL, "test_tasks.py::test_signal_bound_method_receivers",
            "test_each_instance_receives test_disconnect_leaves_other_instance_connected "
            "test_other_instance_receives_after_garbage_collection",
        ),
        Known(
            "test_inspect.py::test_Inspect::test_scheduled",
            "a task with an `eta` waits in the broker and not in the worker, which therefore does not list it",
        ),
        Known(
            "test_inspect.py::test_Inspect::test_report",
            "wants the words `software -> celery`; a Lightbus worker says `software -> lightbus`",
        ),
        Known(
            "test_canvas.py::test_chord::test_nested_chord_header_link_error",
            "wants one call of an errback that is linked to two chords, one in the header of the other: Celery leaves "
            "the outer one PENDING for ever; Lightbus fails both, and each calls it",
            sometimes=True,  # of its subtests the first passes, and pytest would ask of each that it fails
        ),
        Known(
            "test_tasks.py::test_tasks::test_retry",
            "wants RETRY as the first state it sees; Lightbus stores STARTED before a task runs, so that a Celery "
            "worker beside it does not mark it REVOKED, and the test may look at that moment",
            sometimes=True,
        ),
        Known(
            "test_tasks.py::test_tasks::test_expired",
            "a message that expires in a queue of RabbitMQ is dropped there: no worker sees it to store REVOKED",
            broker="rabbitmq",
        ),
    ],
}  # fmt: skip

#: Tests that Celery's own marks expect to fail, and that have to pass here.
BETTER: dict[str, frozenset[str]] = {
    "5.7.0": frozenset({"test_canvas.py::test_chord::test_error_propagates_from_chord"}),
}


def known_failures(version: str, broker: str) -> dict[str, Known]:
    """By the test's name, for one version of Celery and one broker."""
    return {known.test: known for known in KNOWN[version] if known.broker in ("", broker)}
