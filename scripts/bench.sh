#!/usr/bin/env bash
# Measurements that a person runs: `make bench`. A private instance in build/bench (PostgreSQL with fsync on), about three minutes, a table at the end.
# BENCH_CHUNKS (100000): how many chunks are searched. BENCH_PARTS: some of start accept dispatch index search.
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
BENCH_ACCEPT=$ROOT/build/plain/tests/bench/bench_accept PGBENCH=$PGBENCH WORKER_PID=$(pid_of worker) \
    BENCH_RUN=$RUN "$PYTHON" tests/bench/bench.py
