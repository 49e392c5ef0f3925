# The instance that `make up` runs: where its things are, who of it is alive. Sourced by up.sh, down.sh, demo.sh and bench.sh, never run.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
RUN=${OPSTREAM_RUN_DIR:-$ROOT/build/run}
case $RUN in /*) ;; *) RUN=$ROOT/$RUN ;; esac
# Settings that belong to one process, so that a further instance started with build/run/env chooses its own.
OWN_PORTS="API_PORT WS_PORT METRICS_PORT WORKER_PORT WORKER_METRICS_PORT"
# What up.sh makes itself; a shell that has sourced build/run/env hands them back to it unchanged.
GENERATED="DATABASE_URL REDIS_URL JWT_SECRET_KEY INTERNAL_API_KEY OPSTREAM_EMBED_URL OPSTREAM_SOURCE_ROOTS OPSTREAM_MODEL_DIR"

# The text in single quotes, for any shell.
quoted() {
    local q="'\\''"
    printf "'%s'" "${1//\'/$q}"
}

# value_of FILE NAME: what the file of `export NAME=value` lines says, or nothing.
value_of() {
    [ ! -r "$1" ] || (
        unset "$2"
        # shellcheck disable=SC1090
        . "$1" && printf '%s' "${!2:-}"
    )
}

# Where PostgreSQL's data and log are: below build/run, or, when its user may not go there (a checkout below /root), in that user's home with a
# link from build/run.
pg_home() {
    if [ -L "$RUN/postgres" ]; then readlink "$RUN/postgres"; else echo "$RUN/postgres"; fi
}

# pid_of NAME: the process id if that program of this instance lives, else nothing. Process ids are used again by the system, so the
# process must also be the right program.
pid_of() {
    local pid file=$RUN/$1.pid cmdline
    if [ "$1" = postgres ]; then file=$(pg_home)/data/postmaster.pid; fi
    pid=$(head -n 1 "$file" 2>/dev/null) || return 0
    [[ $pid =~ ^[0-9]+$ ]] && [ -r "/proc/$pid/cmdline" ] || return 0
    [ "$(awk '/^State:/ {print $2}' "/proc/$pid/status" 2>/dev/null)" != Z ] || return 0
    # (2> stands first: the shell itself says when there is nothing to open any more.)
    cmdline=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 0
    case $1 in
        postgres) [[ $cmdline == *postgres*"$(pg_home)/data"* ]] || return 0 ;;
        redis) [[ $cmdline == *redis-server*":$(cat "$RUN/redis.port" 2>/dev/null)"* ]] || return 0 ;;
        *) [[ $cmdline == *"/build/bin/opstream-$1"* ]] && [[ $(readlink "/proc/$pid/exe") == *"/opstream-$1"* ]] || return 0 ;;
    esac
    echo "$pid"
}

# stop NAME SECONDS: SIGTERM, then SIGKILL when it takes too long.
stop() {
    local pid
    pid=$(pid_of "$1")
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || die "$1 (process $pid) belongs to another user: stop it as that user"
        local waited=0
        while [ "$(pid_of "$1")" = "$pid" ]; do
            if [ "$waited" -ge $(($2 * 20)) ]; then
                say "  $1 did not end within $2 s: killed"
                kill -9 "$pid" 2>/dev/null || true
                sleep 0.2
                break
            fi
            sleep 0.05
            waited=$((waited + 1))
        done
    fi
    rm -f "$RUN/$1.pid"
}
