"""The worker: a supervisor, its child processes, and in each child the slots that run handlers.

supervisor   forks the children, restarts what dies, passes signals on          (supervisor.py)
process      one child: consumes, hands deliveries to slots, drains at the end  (process.py)
slots        prepare, call the handler, conclude                                (slots.py)
watch        adapts the prefetch, and hands back what long handlers hold up      (watch.py, prefetch.py)
settle       carries an outcome out: acknowledge, or publish a copy first       (settle.py)
"""

from .options import WorkerOptions
from .process import Process
from .supervisor import Supervisor

__all__ = ["Process", "Supervisor", "WorkerOptions"]
