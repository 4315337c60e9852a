"""The scheduler on a bus: what a slot sends, and the process that decides when.

The arithmetic is `lightbus_scheduler`'s, keeping state and sending at one moment a `ports.ScheduleStore`'s.
"""

from .calls import Answers, call_target
from .ends import Ends
from .loop import SystemClock, run
from .targets import EventTarget, FunctionTarget, Target

__all__ = ["Answers", "Ends", "EventTarget", "FunctionTarget", "SystemClock", "Target", "call_target", "run"]
