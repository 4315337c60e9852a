"""The shop: an ordinary Celery project, with a bus beside it."""
