"""The Django app that brings the tables of outbox and inbox: `lightbus.contrib.outbox.django` in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):  # type: ignore[misc]  # Django brings no types
    name = "lightbus.contrib.outbox.django"
    label = "lightbus_outbox"
    verbose_name = "Lightbus outbox"
    default_auto_field = "django.db.models.BigAutoField"
