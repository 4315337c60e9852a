"""Write docs/migration/compatibility.md: what of Celery works, works differently, or is not supported.

    python tests/tools/compatibility.py

Settings come from `lightbus.compat.settingnames`; the rest is below. A row that works names the test that shows it.
`tests/compat/test_compatibility_page.py` compares the page with this, and the rows with Celery itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightbus.compat import settingnames

PAGE = Path(__file__).resolve().parents[2] / settingnames.PAGE

WORKS, DIFFERS, NO_EFFECT, MISSING = "works", "works differently", "no effect", "not supported"


class Row(NamedTuple):
    name: str
    verdict: str
    note: str
    test: str


def rows(verdict: str, test: str, names: str, note: str = "") -> list[Row]:
    return [Row(name, verdict, note, test) for name in names.split()]


GOLDEN_OPTION = "test_a_task_with_that_option_is_celerys"
GOLDEN_CALL = "test_a_call_with_that_option_sends_celerys_message"
SITE = "test_a_django_project_runs_without_celery_and_comes_to_the_same"
REQUEST = "test_the_request_has_every_field_of_the_message"
REFUSED = "test_an_option_of_celerys_worker_says_what_to_do_instead"

TASK_OPTIONS = [
    *rows(WORKS, GOLDEN_OPTION, "bind ignore_result priority compression time_limit soft_time_limit delivery_mode "
          "max_retries default_retry_delay typing throws trail abstract"),
    *rows(WORKS, "test_names_are_celerys", "name"),
    *rows(WORKS, SITE, "base run apply_async __call__ retry delay request"),
    *rows(WORKS, "test_annotations_of_the_settings_are_attributes_of_tasks", "annotate"),
    *rows(WORKS, "test_shadow_name_and_on_bound_of_a_class_are_called", "shadow_name on_bound"),
    *rows(WORKS, "test_acknowledgement_is_early_unless_the_task_or_the_settings_want_it_late", "acks_late"),
    *rows(DIFFERS, "test_a_failure_is_parked_when_the_task_does_not_acknowledge_failures",
          "acks_on_failure", "the message is parked, not dropped; a time limit is a failure too"),
    *rows(MISSING, "", "acks_on_timeout acks_on_failure_or_timeout", "use `acks_on_failure`"),
    *rows(DIFFERS, "test_options_about_lost_workers_are_taken", "reject_on_worker_lost retry_on_worker_lost",
          "a task with `acks_late` whose process died runs again, up to `--max-crashes` times"),
    *rows(WORKS, "test_attributes_of_the_task_and_settings_are_defaults_of_its_messages",
          "queue expires"),
    *rows(DIFFERS, "test_an_exchange_and_routing_key_lead_to_the_queue_that_they_name", "exchange routing_key",
          "they lead to the queue that `task_queues` binds so, or that has the name of the routing key"),
    *rows(WORKS, "test_pickle_keeps_what_json_cannot", "serializer"),
    *rows(WORKS, "test_the_delay_grows_as_celerys",
          "autoretry_for dont_autoretry_for retry_kwargs retry_backoff retry_backoff_max retry_jitter"),
    *rows(WORKS, "test_models_are_validated_in_the_worker_and_dumped_by_the_caller",
          "pydantic pydantic_context pydantic_dump_kwargs"),
    *rows(WORKS, "test_a_model_that_does_not_fit_fails_the_task", "pydantic_strict"),
    *rows(WORKS, "test_the_hooks_of_a_class_are_called_in_celerys_order",
          "before_start on_success on_failure on_retry after_return"),
    *rows(WORKS, "test_apply_runs_in_the_caller", "apply"),
    *rows(WORKS, "test_it_comes_to_what_celery_alone_makes_of_it", "s si signature subtask map starmap chunks"),
    *rows(WORKS, "test_what_replaces_a_task_brings_its_result", "replace"),
    *rows(WORKS, "test_a_task_may_add_another_to_its_chord", "add_to_chord"),
    *rows(WORKS, SITE, "delay_on_commit apply_async_on_commit"),
    *rows(WORKS, "test_celerys_monitors_read_the_events_of_a_lightbus_worker",
          "send_events resultrepr_maxsize send_event"),
    *rows(WORKS, "test_receivers_hear_what_they_hear_on_celerys_worker", "add_trail"),
    *rows(WORKS, "test_the_processes_of_one_worker_share_a_rate_and_other_tasks_pass", "rate_limit"),
    *rows(MISSING, REFUSED, "Strategy Request", "they steer Celery's own worker; use middleware, or leave the task"),
    *rows(MISSING, "", "push_request pop_request request_stack signature_from_request subtask_from_request "
          "start_strategy bind from_config add_around on_replace",
          "inner parts of Celery's task class; `AttributeError`"),
]  # fmt: skip

CALL_OPTIONS = [
    *rows(WORKS, GOLDEN_CALL, "args kwargs task_id countdown headers shadow compression time_limit soft_time_limit "
          "stamped_headers ignore_result argsrepr kwargsrepr priority root_id parent_id group_id group_index retries "
          "replaced_task_nesting reply_to expires delivery_mode"),
    Row("any other keyword", WORKS, "an AMQP property, such as `app_id` or `MessageGroupId`", GOLDEN_CALL),
    *rows(WORKS, "test_options_of_a_call_are_on_the_message", "link link_error queue"),
    *rows(DIFFERS, "test_a_countdown_is_an_eta_and_a_delay_in_the_broker", "eta", "it waits in the broker"),
    *rows(WORKS, "test_it_comes_to_what_celery_alone_makes_of_it", "chord chain"),
    *rows(DIFFERS, "test_an_exchange_and_routing_key_lead_to_the_queue_that_they_name", "exchange routing_key",
          "they lead to the queue that `task_queues` binds so, or that has the name of the routing key"),
    *rows(NO_EFFECT, "", "retry retry_policy mandatory immediate timeout confirm_timeout declare exchange_type "
          "add_to_parent", "Lightbus publishes with confirm, and tries again by itself"),
    *rows(NO_EFFECT, "test_a_connection_or_producer_of_the_callers_own_is_taken_and_not_used",
          "producer publisher connection", "Lightbus sends on its own connection to the app's broker"),
    *rows(MISSING, "test_a_connection_or_producer_of_the_callers_own_is_taken_and_not_used", "router",
          "`TypeError`; use `task_routes`"),
    *rows(WORKS, "test_both_sides_understand_each_other_on_redis", "serializer"),
]  # fmt: skip

APP = [
    *rows(WORKS, "test_a_configuration_reads_as_celerys", "conf config_from_object"),
    *rows(WORKS, "test_a_configuration_can_be_named_by_a_variable", "config_from_envvar"),
    *rows(WORKS, "test_an_app_takes_what_projects_give_it_and_says_what_it_cannot",
          "main add_defaults strict_typing autofinalize"),
    *rows(WORKS, SITE, "task tasks send_task signature AsyncResult autodiscover_tasks connection_for_read"),
    *rows(WORKS, "test_now_and_connections_are_the_apps", "now timezone connection connection_for_write "
          "connection_or_acquire broker_connection"),
    *rows(WORKS, "test_a_class_task_is_registered_and_runs", "register_task ResultSet GroupResult"),
    *rows(WORKS, "test_a_task_class_that_is_set_later_is_the_base_of_tasks_that_exist", "Task"),
    *rows(WORKS, "test_a_subclass_of_the_app_can_have_its_own_task_class_and_configure", "task_cls on_init"),
    *rows(WORKS, "test_signals_of_the_app_come_in_celerys_order",
          "on_configure on_after_configure on_after_finalize finalize finalized"),
    *rows(WORKS, "test_periodic_tasks_are_kept_as_data", "add_periodic_task"),
    *rows(DIFFERS, "test_shared_tasks_belong_to_the_app_that_is_current", "set_current set_default set_as_current",
          "current is one app for the whole process; the tasks of `shared_task` are its own"),
    *rows(WORKS, "test_an_app_may_make_names_of_its_own", "gen_task_name"),
    *rows(WORKS, "test_the_current_task_is_found_from_anywhere", "current_task current_worker_task"),
    *rows(DIFFERS, "test_reconfiguring_opens_results_anew", "backend",
          "where Lightbus keeps results, no class of Celery's"),
    *rows(WORKS, "test_reconfiguring_opens_results_anew", "close"),
    *rows(NO_EFFECT, "", "log", "`app.log.get_default_logger` only; the worker's options are those of its command"),
    *rows(MISSING, "test_an_app_takes_what_projects_give_it_and_says_what_it_cannot", "worker_main start",
          "run `lightbus worker -A MODULE`"),
    *rows(WORKS, "test_the_callers_side_has_celerys_methods_and_arguments", "control"),
    *rows(MISSING, "", "events amqp loader pool producer_pool producer_or_acquire default_connection "
          "default_producer steps user_options Worker WorkController Beat bugreport setup_security "
          "config_from_cmdline select_queues either prepare_config create_task_cls subclass_with_self type_checker "
          "annotations on_after_fork builtin_fixups fixups uses_utc_timezone oid thread_oid clock configured "
          "use_fast_trace_task amqp_cls backend_cls control_cls events_cls loader_cls log_cls registry_cls Pickler "
          "IS_WINDOWS IS_macOS SYSTEM namespace", "parts of Celery's own machinery; `AttributeError`"),
]  # fmt: skip

REQUEST_ATTRIBUTES = [
    *rows(WORKS, REQUEST, "args callbacks called_directly chain chord correlation_id delivery_info errbacks eta "
          "expires get group group_index headers hostname id ignore_result is_eager kwargs origin parent_id properties "
          "replaced_task_nesting reply_to retries root_id shadow soft_time_limit stamped_headers stamps taskset "
          "time_limit timelimit utc"),
    *rows(WORKS, REQUEST, "children"),
    *rows(NO_EFFECT, "", "logfile loglevel", "None: a Lightbus worker logs to its output"),
    *rows(MISSING, "", "as_execution_options clear update", "inner parts of Celery's class; `AttributeError`"),
]  # fmt: skip

STEERS = "test_the_commands_of_celery_see_and_steer_a_worker"
ALIKE = "test_nodes_of_both_kinds_answer_alike_and_share_revokes"
REVOKES = "test_a_message_with_a_revoked_stamp_is_not_run"

CUSTOM = "test_commands_of_the_projects_own_are_answered_by_nodes_of_both_kinds"

CONTROL = [
    *rows(WORKS, ALIKE, "ping clock stats active revoked registered conf report active_queues hello autoscale"),
    *rows(WORKS, STEERS, "query_task enable_events disable_events rate_limit time_limit pool_grow pool_shrink shutdown "
          "revoke heartbeat"),
    *rows(DIFFERS, STEERS, "terminate", "the process ends from inside, whichever signal is named"),
    *rows(DIFFERS, REVOKES, "revoke_by_stamped_headers", "as `revoke`, and as `terminate`"),
    *rows(DIFFERS, ALIKE, "reserved", "behind a long task it is soon empty: what waits goes back to the queue"),
    *rows(DIFFERS, STEERS, "scheduled", "always empty: what is due later waits in the broker"),
    *rows(DIFFERS, STEERS, "add_consumer cancel_consumer",
          "`add_consumer Q` serves `lightbus.Q`; the exchange and the routing key are those of the settings"),
    *rows(DIFFERS, ALIKE, "pool_restart", "loads the code anew, as SIGHUP does; no list of modules"),
    *rows(DIFFERS, STEERS, "memsample", "of the node's own process"),
    *rows(MISSING, "", "memdump objgraph", "`error`: they look into the memory of Celery's worker"),
    *rows(NO_EFFECT, CUSTOM, "election",
          "a Lightbus worker does not vote, as a Celery worker with `--without-gossip`"),
    Row("commands of `@control_command` and `@inspect_command`", DIFFERS,
        "`state` has `app`, `hostname` and `tset`; anything else of it is an `AttributeError` that says so", CUSTOM),
    Row("any other command", MISSING, "`KeyError`, as in Celery", ""),
]  # fmt: skip

HEAD = """# Celery compatibility, name by name

<!-- Written by tests/tools/compatibility.py; change that, or lightbus/compat/settingnames/. -->

For Celery 5.7. **Works** means as in Celery, and the test that is named shows it. A setting that is
**not supported** is a `ConfigError` with its name, where its value is not Celery's default: Lightbus does not go on
where a message would mean something else.
"""


def page() -> str:
    settings = [
        Row(one.name, "not supported" if one.verdict == settingnames.REFUSED else one.verdict, one.note, one.test)
        for one in settingnames.SETTINGS
    ]
    parts = [
        HEAD,
        table(
            "Settings", "Setting", settings, "An own setting of the project is kept, and can be read from `app.conf`."
        ),
        table("Options and methods of tasks", "Option", TASK_OPTIONS, "An unknown option is an attribute of the task."),
        table("Options of `apply_async` and `send_task`", "Option of a call", CALL_OPTIONS, ""),
        table("The app", "Attribute of the app", APP, ""),
        table("`self.request`", "Attribute of the request", REQUEST_ATTRIBUTES, ""),
        table("Remote control", "Command", CONTROL, "See [monitoring](monitoring.md)."),
    ]
    return "\n".join(parts)


def table(title: str, head: str, lines: list[Row], text: str) -> str:
    shown = [f"## {title}", "", *([text, ""] if text else []), f"| {head} | | How, or what instead | Shown by |"]
    shown.append("| --- | --- | --- | --- |")
    for row in sorted(lines, key=lambda row: (row.name.startswith("any other"), row.name)):
        name = row.name if " " in row.name else f"`{row.name}`"
        shown.append(f"| {name} | {row.verdict} | {row.note} | {f'`{row.test}`' if row.test else ''} |")
    return "\n".join(shown) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
