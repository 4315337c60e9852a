"""Celery's task events (`celeryev`), which Flower, `celery events` and exporters read: when, what, and how they leave.

switch      whether a worker's processes send events, and their clock     (switch.py)
observer    the events of a message's way through a worker                 (observer.py)
outbox      a thread that publishes them, and drops what it cannot         (outbox.py)

Events are advice. They are published without waiting, to nobody when nobody listens, and a broker that is away costs
events and never a task.
"""

from .events import TaskEvents
from .outbox import Post
from .switch import Switch

__all__ = ["Post", "Switch", "TaskEvents"]
