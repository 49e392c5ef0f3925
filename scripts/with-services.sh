#!/usr/bin/env bash
# with-services.sh COMMAND…: runs it with a private PostgreSQL (fsync off) and Redis in a temporary folder; DATABASE_URL and REDIS_URL tell where they
# are. PG_BIN chooses another PostgreSQL.
set -eu
. "$(dirname "$0")/lib.sh"
dir=$(mktemp -d /tmp/opstream-services.XXXXXX)
chmod 755 "$dir"
redis_pid=
finish() {
    status=$?
    trap - EXIT INT TERM
    [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
    (cd / && as_pg "$(pg_bin)/pg_ctl" -D "$dir/pg" -m immediate -s stop) >/dev/null 2>&1 || true
    [ -z "$redis_pid" ] || wait "$redis_pid" 2>/dev/null || true
    rm -rf "$dir"
    exit "$status"
}
trap finish EXIT INT TERM
export PGPASSWORD=test
pg_port=$(free_port)
pg_start "$dir/pg" "$pg_port" "$dir/pg.log" -c fsync=off -c synchronous_commit=on -c full_page_writes=off
redis_port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir" --save '' --appendonly no --maxmemory-policy noeviction \
    >"$dir/redis.log" 2>&1 &
redis_pid=$!
for _ in $(seq 100); do
    redis-cli -p "$redis_port" ping >/dev/null 2>&1 && break
    sleep 0.05
done
export DATABASE_URL="postgresql://opstream:test@127.0.0.1:$pg_port/postgres"
export REDIS_URL="redis://127.0.0.1:$redis_port"
export SERVICES_DIR=$dir SERVICES_REDIS_PID=$redis_pid
"$@"
