"""Runs the Lightbus worker of one application: `serve.py shop|support [PROCESSES]`."""
import logging, sys, os
sys.path.insert(0, os.getcwd())
from lightbus.worker import Process, Supervisor, WorkerOptions
logging.basicConfig(level=logging.INFO)
if sys.argv[1] == "shop":
    from shop.celery import app
    app.loader.import_default_modules(); app.finalize()
    from lightbus.compat import default_app
    from lightbus.compat.endpoint import TaskEndpoint
    t = default_app(); t.bus.add_endpoint(TaskEndpoint(t))
    from shop.bus import bus as b
    buses = [t.bus, b]
else:
    from support.bus import bus as b
    buses = [b]
def main(pipe, ready):
    Process(buses, WorkerOptions()).run(supervisor_pipe=pipe, ready=ready)
sys.exit(Supervisor(int(sys.argv[2]) if len(sys.argv) > 2 else 1, main).run(lambda pids: print("ready.", flush=True)))
