"""Remote control as Celery's tools know it (pidbox), and the worker's own events (`celeryev`).

revokes      which task ids must not run, in memory that a worker's processes share   (revokes.py)
statedb      the same over a restart, in a file                                        (statedb.py)
mailbox      kombu's pidbox and events on a connection of their own                    (mailbox.py)
node         the process beside a worker's children that listens and answers           (node.py, facts.py)
commands     what it answers                               (commands.py, looking.py, revoking.py, changing.py)

The caller's side is `lightbus.compat.control`. A node that fails costs answers and never a task.
"""
