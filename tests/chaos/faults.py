"""What goes wrong at random: each fault hits at once, is put right by itself (the keeper starts what died, timers do the rest), and says what has to work again."""
import os
import signal
import subprocess
import threading
import time

from world import send

STORES = "stores"


class Faults:
    """A method is a kind of fault; it returns the processes that have to be ready again, or STORES."""

    def __init__(self, world, rng, points):
        self.world, self.rng, self.points = world, rng, points
        self.timers = []
        self.redis_lost_at = 0.0  # when Redis last forgot something
        self.store_lock = threading.Lock()  # one thing at a time happens to a server
        self.users = []

    def later(self, seconds, action):
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        self.timers.append(timer)
        timer.start()

    def worker(self):
        return self.rng.choice(self.world.workers)

    def settle(self):
        """Everything that was to be put right later is put right."""
        for timer in self.timers:
            timer.join(60)
        self.timers = []
        with self.store_lock:
            pass
        self.world.far_postgres.release()
        self.world.far_redis.release()
        self.world.wake_all()

    # ---- processes

    def kill_worker_group(self):
        worker = self.worker()
        pids = self.world.helpers(worker, None)
        send(pids, signal.SIGKILL)
        return [worker]

    def kill_worker_alone(self):
        worker = self.worker()
        send([worker.pid], signal.SIGKILL)
        return [worker]

    def kill_all_workers(self):
        for worker in self.world.workers:
            send(self.world.helpers(worker, None), signal.SIGKILL)
        return self.world.workers

    def kill_child(self):
        worker = self.worker()
        pids = self.world.helpers(worker, b"--child")
        send(self.rng.sample(sorted(pids), min(len(pids), 1)), signal.SIGKILL)
        return [worker]

    def kill_children(self):
        for worker in self.world.workers:
            send(self.world.helpers(worker, b"--child"), signal.SIGKILL)
        return self.world.workers

    def kill_embedder(self):
        worker = self.worker()
        send(self.world.helpers(worker, b"--embedder"), signal.SIGKILL)
        return [worker]

    def kill_extractor(self):
        for worker in self.world.workers:
            send(self.world.helpers(worker, b"--extractor"), signal.SIGKILL)
        return self.world.workers

    def kill_at_point(self):
        """Whoever passes at one of the named points next."""
        self.points.arm(self.rng.choice(self.points.everywhere), "kill")
        return []

    def kill_api(self):
        api = self.rng.choice(self.world.apis)
        send([api.pid], signal.SIGKILL)
        return [api]

    def kill_both_apis(self):
        send([api.pid for api in self.world.apis], signal.SIGKILL)
        return self.world.apis

    def kill_everything(self):
        for process in self.world.processes:
            send(self.world.helpers(process, None), signal.SIGKILL)
        return self.world.processes

    def stop_worker(self):
        """Past its lease: others take over, then it comes back and believes that nothing happened."""
        worker = self.worker()
        pids = [worker.pid] if self.rng.random() < 0.5 else self.world.helpers(worker, None)
        send(pids, signal.SIGSTOP)
        self.later(self.rng.uniform(1, 6), lambda: send(pids, signal.SIGCONT))
        return [worker]

    def stop_child(self):
        worker = self.worker()
        pids = self.world.helpers(worker, b"--child")
        send(pids, signal.SIGSTOP)
        self.later(self.rng.uniform(1, 5), lambda: send(pids, signal.SIGCONT))
        return [worker]

    def drain_worker(self):
        worker = self.worker()
        send([worker.pid], signal.SIGTERM)
        return [worker]

    def restart_api(self):
        api = self.rng.choice(self.world.apis)
        send([api.pid], signal.SIGTERM)
        return [api]

    def rolling_restart(self):
        for i, process in enumerate(self.world.processes):
            self.later(0.01 + i * 0.7, lambda p=process: send([p.pid], signal.SIGTERM))
        return self.world.processes

    # ---- PostgreSQL

    def in_turn(self, action):
        def run():
            with self.store_lock:
                action()
        self.later(0.01, run)
        return STORES

    def backends(self, condition):
        try:
            return [int(row[0]) for row in self.world.stack.sql(
                f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND ({condition})")]
        except (AssertionError, subprocess.TimeoutExpired):
            return []

    def kill_postgres_backend(self):
        """The server takes all other sessions down and recovers."""
        return self.in_turn(lambda: send(self.backends("application_name LIKE '%-%'")[:1], signal.SIGKILL))

    def kill_postgres(self):
        pause = self.rng.uniform(0, 2)

        def act():
            self.world.servers.kill_postgres()
            time.sleep(pause)
            self.world.servers.start_postgres()
        return self.in_turn(act)

    def stop_postgres(self):
        mode = self.rng.choice(("immediate", "fast"))
        pause = self.rng.uniform(0, 2)

        def act():
            self.world.servers.stop_postgres(mode)
            time.sleep(pause)
            self.world.servers.start_postgres()
        return self.in_turn(act)

    def terminate_sessions(self):
        def act():
            try:
                self.world.stack.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            except (AssertionError, subprocess.TimeoutExpired):
                pass
        return self.in_turn(act)

    def freeze_sessions(self):
        """Some sessions of workers answer so late that nobody waits for them any more, but they answer."""
        seconds = self.rng.choice((1, 3, 8))

        def act():
            pids = self.backends("application_name LIKE 'opstream-worker%' OR application_name LIKE '%-%-%-%-%'")[:3]
            send(pids, signal.SIGSTOP)
            time.sleep(seconds)
            send(pids, signal.SIGCONT)
        return self.in_turn(act)

    # ---- Redis

    def kill_redis(self):
        pause = self.rng.uniform(0, 2)

        def act():
            self.world.servers.kill_redis(forget=False)
            time.sleep(pause)
            self.world.servers.start_redis()
        return self.in_turn(act)

    def kill_redis_and_its_data(self):
        pause = self.rng.uniform(0, 2)

        def act():
            self.redis_lost_at = time.time()
            self.world.servers.kill_redis(forget=True)
            time.sleep(pause)
            self.world.servers.start_redis()
            self.redis_lost_at = time.time()
        return self.in_turn(act)

    def flush_redis(self):
        def act():
            self.world.stack.redis_cli("FLUSHALL")
            self.redis_lost_at = time.time()
        return self.in_turn(act)

    # ---- the network

    def partition(self, *gates):
        for gate in gates:
            gate.hold()
        seconds = self.rng.uniform(0.5, 7)
        is_cut = self.rng.random() < 0.4

        def heal():
            for gate in gates:
                if is_cut:
                    gate.shut()
                    gate.release()
                    gate.open()
                else:
                    gate.release()
        self.later(seconds, heal)
        return self.world.far_processes

    def partition_from_postgres(self):
        return self.partition(self.world.far_postgres)

    def partition_from_redis(self):
        return self.partition(self.world.far_redis)

    def partition_from_both(self):
        return self.partition(self.world.far_postgres, self.world.far_redis)


# How often, in proportion. Those of KILLS count as kills.
WEIGHTS = {
    "kill_worker_group": 8, "kill_worker_alone": 8, "kill_all_workers": 2, "kill_child": 14, "kill_children": 5, "kill_embedder": 5, "kill_extractor": 6, "kill_at_point": 12,
    "kill_api": 10, "kill_both_apis": 3, "kill_everything": 1, "kill_postgres_backend": 3, "kill_postgres": 2, "kill_redis": 5, "kill_redis_and_its_data": 1, "stop_postgres": 1,
    "stop_worker": 3, "stop_child": 2, "drain_worker": 3, "restart_api": 2, "rolling_restart": 1, "terminate_sessions": 2, "freeze_sessions": 2, "flush_redis": 1,
    "partition_from_postgres": 2, "partition_from_redis": 2, "partition_from_both": 1,
}
KILLS = {name for name in WEIGHTS if name.startswith("kill_")}
assert all(hasattr(Faults, name) for name in WEIGHTS), "a weight without a fault"
assert os.path.isdir("/proc/self"), "chaos needs /proc"
