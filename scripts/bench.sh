#!/usr/bin/env bash
# Measurements that a person runs: `make bench`. A private instance in build/bench (PostgreSQL with fsync on), about three minutes, a table at the end.
# BENCH_CHUNKS (100000): how many chunks are searched. BENCH_PARTS: some of start accept dispatch index search queue relay. The part `queue` measures our own
# worker; `make bench-queue` measures it beside other queues (BENCH_PEERS). The part `relay` is three scenarios of `make bench-relay`.
set -eu
export OPSTREAM_RUN_DIR=${OPSTREAM_RUN_DIR:-build/bench}
. "$(dirname "$0")/instance.sh"
[ "${1:-}" != --keep ] || keep=1
trap '[ -n "${keep:-}" ] || scripts/down.sh --forget >/dev/null' EXIT
unset OPSTREAM_ENV_FROM DATABASE_URL REDIS_URL
mkdir -p "$RUN/documents"
RATE_LIMITS=off TEST_OPERATIONS=true LOG_LEVEL=warning API_PORT=0 scripts/up.sh --quiet
PGBENCH=$(pg_bin)/pgbench
[ -x "$PGBENCH" ] || PGBENCH=pgbench
# shellcheck disable=SC1091
. "$RUN/env"
BENCH_PARTS=${BENCH_PARTS:-start accept dispatch index search queue relay}
[ "$BENCH_PARTS" = queue ] || BENCH_ACCEPT=$ROOT/build/plain/tests/bench/bench_accept PGBENCH=$PGBENCH WORKER_PID=$(pid_of worker) \
    BENCH_RUN=$RUN BENCH_PARTS=$BENCH_PARTS "$PYTHON" tests/bench/bench.py
case " $BENCH_PARTS " in
    *" queue "*)
        # The benchmark starts its workers itself; nothing else may take from the queues.
        stop worker 30
        stop api 30
        POSTGRES_PID=$(pid_of postgres) REDIS_PID=$(pid_of redis) BENCH_RUN=$RUN BENCH_PEERS=${BENCH_PEERS:-none} \
            PYTHONDONTWRITEBYTECODE=1 "$PYTHON" tests/bench/queue/bench_queue.py
        ;;
esac
case " $BENCH_PARTS " in
    *" relay "*)
        # It has servers of its own; these are out of its way.
        stop worker 30
        stop api 30
        env -u DATABASE_URL -u REDIS_URL PYTHONDONTWRITEBYTECODE=1 "$PYTHON" tests/bench/relay/bench_relay.py --scenarios A,B,C --idle 10
        ;;
esac
