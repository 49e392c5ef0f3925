#!/usr/bin/env bash
# Stops what `make up` started; the data stay. `down.sh --forget` removes them too.
set -eu
. "$(dirname "$0")/instance.sh"
[ -d "$RUN" ] || { say "nothing is running"; exit 0; }
exec 9>>"$RUN/.lock"
flock -w 120 9 || die "another make up or make down is at work in $RUN"

stopped=
for name in api worker redis postgres; do
    [ -z "$(pid_of "$name")" ] || stopped="$stopped $name"
done
drain=$(value_of "$RUN/env" DRAIN_SECONDS)
stop api $((${drain:-20} + 5)) &
api=$!
stop worker $((${drain:-20} + 10))
wait "$api" || true
stop redis 20
pid=$(pid_of postgres)
if [ -n "$pid" ]; then
    # Fast shutdown: connections are cut, the data written.
    PG_USER=$(stat -c %U "$(pg_home)/data")
    export PG_USER
    (cd / && as_pg "$(pg_bin)/pg_ctl" -D "$(pg_home)/data" -m fast -w -t 60 -s stop) || die "PostgreSQL (process $pid) did not stop; its log: $RUN/postgres.log"
fi
rm -f "$RUN/postgres.pid"
if [ "${1:-}" = --forget ]; then
    # Only what up.sh made: never a folder that a wrong OPSTREAM_RUN_DIR names.
    [ -e "$RUN/.opstream" ] || die "$RUN was not made by make up: not removed"
    rm -rf "$(pg_home)" "$RUN"
    say "removed the data"
elif [ -n "$stopped" ]; then
    say "stopped:$stopped (the data stay: make up goes on, make clean-data forgets them)"
else
    say "nothing was running"
fi
