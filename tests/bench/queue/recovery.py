"""How long until a killed worker's operation runs again. Two workers are up, one of them runs it; the rows are looked at every few milliseconds."""
import os
import signal
import time

from machine import read, stop_here, tree, wait_until

RUNS = 5
LOOK = 0.003
CONFIG = '{"sleep_ms": 120000, "sleep_attempts": 1}'  # killed in its first attempt, over at once in its second


def state(bench, uuid):
    status, attempt = bench.sql(f"SELECT status, attempt FROM operations WHERE uuid = '{uuid}'").split("|")
    return status, int(attempt)


def begin_operation(bench, worker_of):
    """A long operation that has been started; its UUID."""
    uuid = worker_of.accept(bench, 1, CONFIG)[0]
    worker_of.push(bench, [uuid])
    if not wait_until(lambda: state(bench, uuid) == ("processing", 1), 30):
        stop_here("the operation was not started within 30 s")
    time.sleep(0.3)
    return uuid


def watch(bench, uuid, killed, seconds):
    """(seconds until it was seen that the attempt is over, seconds until the next start)."""
    noticed = wait_until(lambda: state(bench, uuid) != ("processing", 1) and time.time(), seconds, LOOK)
    again = noticed and wait_until(lambda: state(bench, uuid)[1] > 1 and time.time(), seconds, LOOK)
    if not again:
        stop_here(f"the operation did not run again within {seconds} s")
    return noticed - killed, again - killed


def after_group_kill(bench, ours, lease):
    """SIGKILL to every process of the worker. The second worker has been up for longer than a lease, as a sweeper has to be."""
    settings = {"WORKER_LEASE_SECONDS": str(lease)}
    ours.empty(bench)
    holder, found, sweeper = ours.begin(bench, **settings), [], None
    try:
        for _ in range(RUNS):
            uuid = begin_operation(bench, ours)
            sweeper = ours.begin(bench, **settings)
            time.sleep(lease + 1.5)
            killed = time.time()
            ours.kill(holder)
            holder, sweeper = sweeper, None
            found.append(watch(bench, uuid, killed, 60)[1])
            ours.wait_for_end(bench, 10)
    finally:
        for worker in filter(None, (holder, sweeper)):
            ours.kill(worker)
    return found


def switches(pid):
    return next((int(line.split()[1]) for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("voluntary_ctxt")), 0)


def busy_child(ours, worker):
    """The child that wakes up again and again, as a dozing noop does; idle ones sleep."""
    children = [pid for pid in tree(worker.pid) if ours.role(pid) == "child"]
    before = {pid: switches(pid) for pid in children}
    time.sleep(0.4)
    return max(children, key=lambda pid: switches(pid) - before[pid])


def after_child_kill(bench, ours):
    ours.empty(bench)
    worker, found = ours.begin(bench), []
    try:
        for _ in range(RUNS):
            uuid = begin_operation(bench, ours)
            child = busy_child(ours, worker)
            killed = time.time()
            os.kill(child, signal.SIGKILL)
            found.append(watch(bench, uuid, killed, 30))
            ours.wait_for_end(bench, 10)
            time.sleep(1)
    finally:
        ours.kill(worker)
    return found
