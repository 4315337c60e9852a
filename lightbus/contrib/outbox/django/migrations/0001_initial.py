"""The tables of outbox and inbox."""

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]  # Django brings no types
    initial = True
    dependencies: tuple[tuple[str, str], ...] = ()
    operations = (
        migrations.CreateModel(
            name="InboxRow",
            fields=(
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("listener", models.CharField(max_length=255)),
                ("message_id", models.CharField(max_length=255)),
                ("handled_at", models.FloatField()),
            ),
            options={
                "db_table": "lightbus_inbox",
                "indexes": [models.Index(fields=["handled_at"], name="lightbus_inbox_handled_at")],
                "constraints": [models.UniqueConstraint(fields=("listener", "message_id"), name="lightbus_inbox_once")],
            },
        ),
        migrations.CreateModel(
            name="OutboxRow",
            fields=(
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("transaction_id", models.CharField(max_length=40)),
                ("attempts", models.IntegerField()),
                ("next_at", models.FloatField()),
                ("error", models.TextField()),
                ("aside", models.IntegerField()),
                ("message_id", models.CharField(max_length=255)),
                ("kind", models.CharField(max_length=20)),
                ("name", models.TextField()),
                ("exchange", models.TextField()),
                ("routing_key", models.TextField()),
                ("properties", models.TextField()),
                ("body", models.BinaryField()),
                ("visible_at", models.FloatField()),
                ("written_at", models.FloatField()),
            ),
            options={
                "db_table": "lightbus_outbox",
                "indexes": [models.Index(fields=["transaction_id", "id"], name="lightbus_outbox_transaction")],
            },
        ),
    )
