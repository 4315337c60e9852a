"""The worker: a supervisor, its child processes, and in each child the slots that run handlers.

supervisor   forks the children, replaces what ends, carries signals out        (supervisor.py, children.py)
process      one child: consumes, hands deliveries to slots, drains at the end  (process.py)
slots        prepare, call the handler, conclude                                (slots.py)
watch        adapts the prefetch, and hands back what long handlers hold up      (watch.py, prefetch.py)
settle       carries an outcome out: acknowledge, or publish a copy first       (settle.py)
gate         what is over its rate waits there                                (gate.py, rates.py)
turnstile    what may run only so many at a time passes there                 (turnstile.py, permits.py)
lanes        keeps messages in order: one at a time, in one process             (lanes.py, holds.py)
runs         what runs now, its hard limit, and who ends it                     (runs.py)

Between the two kinds of process: a board in shared memory that says what runs and what crashed (board.py, crashes.py,
accounts.py), and a channel for words (control.py, lost.py). Beside the supervisor: limits, autoscale, health, pidfile,
reload; and in one process of their own (beside.py, companions.py) what has connections: health over HTTP (http.py),
what is asked about the worker (answering.py) and remote control (attendant.py, remote.py). What a supervisor is made of
besides: oversight.py, stopping.py, handover.py.
"""

from .answering import answered_here, answers
from .autoscale import Autoscale
from .companions import MakeCompanion
from .control import Supervised
from .health import Health, HealthFile, Sign, Systemd
from .limits import Limits
from .options import WorkerOptions
from .oversight import Oversight
from .permits import Permits
from .process import Process
from .rates import Rates
from .served import permits_of, rates_of
from .supervisor import Supervisor

__all__ = [
    "Autoscale", "Health", "HealthFile", "Limits", "MakeCompanion", "Oversight", "Permits", "Process", "Rates", "Sign",
    "Supervised", "Supervisor", "Systemd", "WorkerOptions", "answered_here", "answers", "permits_of", "rates_of",
]  # fmt: skip
