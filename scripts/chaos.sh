#!/usr/bin/env bash
# chaos.sh [OPTION…]: tests/chaos/chaos.py with the programs that have fault points. It starts a PostgreSQL and a Redis of its own.
set -eu
. "$(dirname "$0")/lib.sh"
export OPSTREAM_BIN=${OPSTREAM_BIN:-$ROOT/build/plain-faults/bin}
exec "$PYTHON" tests/chaos/chaos.py "$@"
