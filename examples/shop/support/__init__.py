"""Support: a second application on the same broker. It has no Celery, and imports nothing of the shop's."""
