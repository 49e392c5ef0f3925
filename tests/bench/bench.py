"""The figures of docs/benchmarks.md, against the instance that scripts/bench.sh started. Standard library and psql only."""
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import accept

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
RUN = os.environ["BENCH_RUN"]
URL = os.environ["OPSTREAM_URL"]
DATABASE = os.environ["DATABASE_URL"]
CHUNKS = int(os.environ.get("BENCH_CHUNKS", "100000"))
PARTS = os.environ.get("BENCH_PARTS", "start accept dispatch index search").split()
rows = []


def row(what, figure, note=""):
    rows.append((what, figure, note))
    print(f"  {what:<58} {figure:>16}  {note}", flush=True)


def sql(statement):
    out = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", DATABASE], input=statement, capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit("bench: " + out.stderr)
    return out.stdout.strip()


class Api:
    """Keep-alive over one connection, so that a search's time is the search's."""
    token = None

    def __init__(self):
        self.connect()

    def connect(self):
        host, port = URL.split("//")[1].split(":")
        self.sock = socket.create_connection((host, int(port)))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        if Api.token:
            head += f"Authorization: Bearer {Api.token}\r\n"
        self.sock.sendall(head.encode() + b"\r\n" + data)
        status = int(self.file.readline().split()[1])
        length = 0
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer = self.file.read(length)
        if status >= 300:
            sys.exit(f"bench: {method} {path}: {status} {answer[:300]!r}")
        return json.loads(answer) if answer else None


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def bench_start():
    """A further API instance: from exec to the first 200 of /readyz, and what it holds when idle."""
    times, sizes = [], []
    for _ in range(7):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        env = {**os.environ, "API_PORT": str(port), "METRICS_PORT": "0"}
        begun = time.perf_counter()
        with open(os.path.join(RUN, "bench-api.log"), "ab") as log:
            child = subprocess.Popen([os.path.join(ROOT, "build/bin/opstream-api")], env=env, stdout=log, stderr=log)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port)) as s:
                    s.sendall(b"GET /api/health/readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                    if b" 200 " in s.recv(4096).split(b"\r\n")[0]:
                        break
            except OSError:
                pass
            if child.poll() is not None or time.perf_counter() - begun > 30:
                sys.exit(f"bench: the API did not start; see {RUN}/bench-api.log")
            time.sleep(0.001)
        times.append((time.perf_counter() - begun) * 1000)
        time.sleep(1)
        with open(f"/proc/{child.pid}/status") as status:
            sizes.append(next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024)
        child.terminate()
        child.wait()
    row("API: from exec to ready, median of 7", f"{statistics.median(times):.0f} ms")
    row("API: resident memory when idle", f"{statistics.median(sizes):.1f} MB")


def bench_accept(folder, user_id):
    """With the worker asleep: what is accepted is thrown away, so that nobody does it."""
    def flush():
        subprocess.run(["redis-cli", "-u", os.environ["REDIS_URL"], "--no-auth-warning", "-n", os.environ.get("REDIS_QUEUE_DB", "1"), "flushdb"],
                       capture_output=True, check=True)
    os.kill(int(os.environ["WORKER_PID"]), signal.SIGSTOP)
    try:
        accept.run(accept.Bench(RUN, ROOT, URL, Api.token, folder, user_id, sql), row, flush)
    finally:
        os.kill(int(os.environ["WORKER_PID"]), signal.SIGCONT)


def push_noops(count):
    """Milliseconds from just before the push of a committed operation to its claim, one after another; both clocks are this machine's."""
    address = urllib.parse.urlparse(os.environ["REDIS_URL"])
    redis = socket.create_connection((address.hostname, address.port))
    answers = redis.makefile("rb")

    def say(*words):
        redis.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        answer = answers.readline()
        if not answer.startswith((b"+", b":")):
            sys.exit(f"bench: Redis says {answer!r}")
    if address.password:
        say("AUTH", address.username or "default", address.password)
    say("SELECT", os.environ.get("REDIS_QUEUE_DB", "1"))
    at = {}
    for _ in range(count):
        uuid = sql("INSERT INTO operations (user_id, type, mutates, queue, config) SELECT min(id), 'noop', false, 'default', '{\"events\": 1}' FROM users RETURNING uuid")
        time.sleep(0.03)
        at[uuid] = time.time()
        say("LPUSH", os.environ.get("REDIS_PREFIX", "") + "queue:default", uuid)
    time.sleep(1)
    started = dict(line.split("|") for line in sql("SELECT uuid, extract(epoch FROM started_at) FROM operations WHERE type = 'noop' AND started_at IS NOT NULL").split())
    return [(float(started[uuid]) - begun) * 1000 for uuid, begun in at.items()]


def bench_dispatch(api):
    """An INDEX of an empty collection when nothing else is to be done: from the row's creation to the worker's claim, by PostgreSQL's clock."""
    for i in range(150):
        made = api.call("POST", "/api/v2/collections", {"name": f"dispatch {i}"})
        for _ in range(2000):
            if api.call("GET", "/api/v2/collections/" + made["id"])["status"] == "ready":
                break
            time.sleep(0.005)
    waits = [float(v) for v in sql("SELECT extract(epoch FROM started_at - created_at) * 1000 FROM operations WHERE type = 'index' AND started_at IS NOT NULL").split()]
    pushed = push_noops(100)
    row("From the push to the start, idle, p50", f"{percentile(pushed, 50):.2f} ms", f"p99 {percentile(pushed, 99):.1f} ms; {len(pushed)} operations of type noop")
    row("From accepted to started, idle, p50", f"{percentile(waits, 50):.1f} ms", f"p99 {percentile(waits, 99):.1f} ms; {len(waits)} operations")


WORDS = ("river stone engine garden letter winter signal market ocean copper forest window ladder music planet candle bridge harbor silver thunder meadow "
         "paper rocket castle desert island mirror orchard pepper quarry ribbon saddle temple valley wagon yellow anchor basket cotton dragon").split()


def write_notes(folder, count):
    os.makedirs(folder, exist_ok=True)
    choose = random.Random(1)
    for i in range(count):
        with open(os.path.join(folder, f"note{i:05d}.txt"), "w") as file:
            for _ in range(12):
                file.write("The " + " ".join(choose.choice(WORDS) for _ in range(12)) + ".\n")


def bench_index(api, folder):
    write_notes(folder, 500)
    made = api.call("POST", "/api/v2/collections", {"name": "index"})
    while api.call("GET", "/api/v2/collections/" + made["id"])["status"] != "ready":
        time.sleep(0.05)
    operation = api.call("POST", f"/api/v2/collections/{made['id']}/sources", {"source_type": "directory", "source_config": {"path": folder}, "source_path": folder})
    while (state := api.call("GET", "/api/v2/operations/" + operation["id"]))["status"] in ("pending", "processing"):
        time.sleep(0.1)
    if state["status"] != "completed":
        sys.exit(f"bench: indexing ended as {state}")
    took = float(sql(f"SELECT extract(epoch FROM completed_at - started_at) FROM operations WHERE uuid = '{operation['id']}'"))
    chunks, tokens = sql(f"SELECT count(*), sum(c.tokens) FROM chunks c JOIN collections k ON k.id = c.collection_id WHERE k.uuid = '{made['id']}'").split("|")
    row("Indexing: files to searchable vectors", f"{int(chunks) / took:.0f} texts/s", f"{int(tokens) / took:.0f} tokens/s; {chunks} chunks of {int(tokens) // int(chunks)} tokens in {took:.1f} s")
    return made


def fill(made):
    """CHUNKS rows of random unit vectors beside the real ones, each visible, with the graph that the program would build."""
    collection, generation = sql(f"SELECT id, active_generation FROM collections WHERE uuid = '{made['id']}'").split("|")
    document = sql(f"INSERT INTO documents (collection_id, path, file_name, file_path, status, live_version, next_version, chunk_count)"
                   f" VALUES ({collection}, '/bench', 'bench', '/bench', 'completed', 1, 2, {CHUNKS}) RETURNING id")
    sql(f"""INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte)
        SELECT {collection}, {document}, 1, i, 'Passage ' || i || ' of the benchmark, with some words of text to be shown with its score.', 16, 0, 80 FROM generate_series(1, {CHUNKS}) i""")
    # Sums of uniform numbers are near enough to normal ones; a normal vector points in a random direction.
    sql(f"""INSERT INTO vec.g{generation} (chunk_id, document_id, version, embedding)
        SELECT c.id, {document}, 1, l2_normalize(v.e::vector)::halfvec(384) FROM chunks c CROSS JOIN LATERAL (
            SELECT array_agg(random() + random() + random() + random() - 2 + (c.id + i) * 0) AS e FROM generate_series(1, 384) i) v
        WHERE c.collection_id = {collection} AND c.document_id = {document}""")
    begun = time.monotonic()
    sql(f"""BEGIN; SET LOCAL maintenance_work_mem = '1GB'; SET LOCAL max_parallel_maintenance_workers = 0;
        CREATE INDEX IF NOT EXISTS g{generation}_graph ON vec.g{generation} USING hnsw (embedding halfvec_ip_ops) WITH (m = 16, ef_construction = 64);
        UPDATE generations SET has_graph = true WHERE id = {generation}; COMMIT; ANALYZE vec.g{generation}; ANALYZE chunks; ANALYZE documents""")
    return time.monotonic() - begun


def bench_search(api, made):
    built = fill(made)
    api.connect()  # the server lets connections go that say nothing for as long as that took
    choose = random.Random(2)

    def once():
        query = "What about the " + " and the ".join(choose.choice(WORDS) for _ in range(3)) + "?"
        begun = time.perf_counter()
        answer = api.call("POST", "/api/v2/search", {"query": query, "collection_uuids": [made["id"]], "k": 10, "use_reranker": False})
        assert len(answer["results"]) == 10, answer
        return (time.perf_counter() - begun) * 1000, answer["embedding_time_ms"] or 0, answer["search_time_ms"] or 0
    for _ in range(30):
        once()
    times = [once() for _ in range(400)]
    total = [t[0] for t in times]
    row(f"Search over {CHUNKS} chunks, p50, query embedded anew", f"{percentile(total, 50):.1f} ms",
        f"p99 {percentile(total, 99):.1f} ms; embedding {percentile([t[1] for t in times], 50):.1f}, store {percentile([t[2] for t in times], 50):.1f}; graph built in {built:.0f} s")


def main():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "?")
    print(f"Opstream on {os.cpu_count()} cores ({model})\n")
    api = Api()
    name = "bench"
    status = urllib.request.Request(URL + "/api/auth/register", method="POST", headers={"Content-Type": "application/json"},
                                    data=json.dumps({"username": name, "email": "bench@example.org", "password": "a password for benchmarks"}).encode())
    try:
        urllib.request.urlopen(status).read()
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
    Api.token = api.call("POST", "/api/auth/login", {"username": name, "password": "a password for benchmarks"})["access_token"]
    user_id = api.call("GET", "/api/auth/me")["id"]
    folder = os.path.join(RUN, "documents", "notes")
    os.makedirs(folder, exist_ok=True)
    if "start" in PARTS:
        bench_start()
    if "accept" in PARTS:
        bench_accept(folder, user_id)
    if "dispatch" in PARTS:
        bench_dispatch(api)
    if "index" in PARTS or "search" in PARTS:
        made = bench_index(api, folder)
    if "search" in PARTS:
        bench_search(api, made)
    with open(os.path.join(ROOT, "build", "bench.json"), "w") as file:
        json.dump([{"what": w, "figure": f, "note": n} for w, f, n in rows], file, indent=1)


if __name__ == "__main__":
    main()
