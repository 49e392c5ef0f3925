"""make up and make down, as a person uses them, in a folder of their own."""
import os
import signal
import subprocess
import tempfile

import pytest
from support.client import Client
from support.stack import ROOT, fetch, wait_for


@pytest.fixture
def instance():
    folder = tempfile.mkdtemp(prefix="opstream-up-")
    os.chmod(folder, 0o755)
    run = os.path.join(folder, "run")
    # Nothing of the tests' own servers.
    env = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "PG_BIN", "PGPASSWORD")}

    class Instance:
        path = run

        @staticmethod
        def script(name, *arguments, status=0, **settings):
            out = subprocess.run([os.path.join(ROOT, "scripts", name), *arguments], env={**env, "OPSTREAM_RUN_DIR": run, **settings}, capture_output=True, text=True,
                                 timeout=300, check=False)
            assert out.returncode == status, out.stdout + out.stderr
            return out.stdout + out.stderr

        @staticmethod
        def env(name):
            return subprocess.run(["sh", "-c", f'. {run}/env; printf %s "${name}"'], capture_output=True, text=True, check=True).stdout

        @staticmethod
        def pid(name):
            with open(os.path.join(run, name + ".pid")) as file:
                return int(file.read())

    yield Instance
    Instance.script("down.sh", "--forget")
    os.rmdir(folder)


def test_it_starts_what_is_dead_keeps_what_lives_and_forgets_nothing(instance):
    instance.script("up.sh", API_PORT="0")
    url = instance.env("OPSTREAM_URL")
    assert fetch(url + "/api/health/readyz")[0] == 200
    assert os.stat(os.path.join(instance.path, "env")).st_mode & 0o077 == 0, "secrets are for their owner"
    user = Client.registered(url)
    name = user.collection(name="kept over a restart")["name"]
    pids = {program: instance.pid(program) for program in ("api", "worker", "postgres", "redis")}
    for program, pid in pids.items():
        with open(f"/proc/{pid}/cmdline") as file:
            assert {"api": "opstream-api", "worker": "opstream-worker", "postgres": "postgres", "redis": "redis-server"}[program] in file.read()

    assert "running already" in instance.script("up.sh")
    assert pids == {program: instance.pid(program) for program in pids}

    os.kill(pids["worker"], signal.SIGKILL)
    wait_for("the worker to be gone", lambda: not os.path.exists(f"/proc/{pids['worker']}/exe"))
    instance.script("up.sh")
    assert {program for program, pid in pids.items() if instance.pid(program) != pid} == {"worker"}

    assert "api worker redis postgres" in instance.script("down.sh")
    assert fetch(url + "/healthz")[0] == 0
    assert "nothing was running" in instance.script("down.sh")
    instance.script("up.sh")
    assert instance.env("OPSTREAM_URL") == url
    assert name in [c["name"] for c in user.must("GET", "/api/v2/collections")["collections"]]


def test_settings_are_passed_on_and_remembered_but_not_wrong_ones(instance):
    roots = os.path.join(ROOT, "docs") + ":/usr/share"
    instance.script("up.sh", API_PORT="0", OPSTREAM_SOURCE_ROOTS=roots, LOG_LEVEL="debug")
    assert instance.env("OPSTREAM_SOURCE_ROOTS") == roots
    pid = instance.pid("api")
    with open(f"/proc/{pid}/environ") as file:
        assert "LOG_LEVEL=debug\0" in file.read()
    assert "LOG_LEVEL" in instance.script("up.sh", LOG_LEVEL="loud", status=1)
    assert "running already" in instance.script("up.sh")
    assert instance.pid("api") == pid
    instance.script("up.sh", LOG_LEVEL="")
    assert instance.env("LOG_LEVEL") == "" and instance.env("OPSTREAM_SOURCE_ROOTS") == roots
    assert instance.env("API_PORT") == "", "a further instance chooses its own port"


def test_a_recycled_process_id_is_no_running_program(instance):
    instance.script("up.sh", API_PORT="0")
    instance.script("down.sh")
    with open(os.path.join(instance.path, "api.pid"), "w") as file:
        file.write(f"{os.getpid()}\n")
    instance.script("down.sh")
    instance.script("up.sh")
    assert instance.pid("api") != os.getpid()
