"""The tables of outbox and inbox, for migrations and the admin; `lightbus.contrib.outbox` writes and reads them."""

from __future__ import annotations

from django.db import models

from ..writing import INBOX_TABLE, OUTBOX_TABLE


class OutboxRow(models.Model):  # type: ignore[misc]  # Django brings no types
    """A message that waits to be published; see `lightbus.core.outbox.Row` and `Entry`."""

    id = models.BigAutoField(primary_key=True)
    transaction_id = models.CharField(max_length=40)
    attempts = models.IntegerField()
    next_at = models.FloatField()
    error = models.TextField()
    aside = models.IntegerField()
    message_id = models.CharField(max_length=255)
    kind = models.CharField(max_length=20)
    name = models.TextField()
    exchange = models.TextField()
    routing_key = models.TextField()
    properties = models.TextField()
    body = models.BinaryField()
    visible_at = models.FloatField()
    written_at = models.FloatField()

    class Meta:
        db_table = OUTBOX_TABLE
        indexes = (models.Index(fields=["transaction_id", "id"], name=f"{OUTBOX_TABLE}_transaction"),)

    def __str__(self) -> str:
        return f"{self.name} {self.message_id}"


class InboxRow(models.Model):  # type: ignore[misc]  # Django brings no types
    """A message that a listener has handled."""

    id = models.BigAutoField(primary_key=True)
    listener = models.CharField(max_length=255)
    message_id = models.CharField(max_length=255)
    handled_at = models.FloatField()

    class Meta:
        db_table = INBOX_TABLE
        constraints = (models.UniqueConstraint(fields=["listener", "message_id"], name=f"{INBOX_TABLE}_once"),)
        indexes = (models.Index(fields=["handled_at"], name=f"{INBOX_TABLE}_handled_at"),)

    def __str__(self) -> str:
        return f"{self.listener} {self.message_id}"
