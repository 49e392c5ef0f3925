#!/usr/bin/env bash
# All tests, as CI runs them. Every part is timed; the last line is the sum over all runners. A part that fails does not stop the others.
set -u
. "$(dirname "$0")/lib.sh"
export TEST_TOTALS=$ROOT/build/test-totals
: >"$TEST_TOTALS"
failed_parts=
part() {
    local name=$1 started=$SECONDS
    shift
    say "=== $name"
    "$@" || failed_parts="$failed_parts $name"
    say "--- $name: $((SECONDS - started)) s"
}
programs() { # KIND FLAVOUR
    local t
    for t in tests/"$1"/test_*.c; do [ ! -f "$t" ] || echo "build/$2/${t%.c}"; done
}
sanitized() {
    make -s -j2 build-tests SAN=address,undefined || return 1
    ASAN_OPTIONS=detect_leaks=1 scripts/run-tests.sh $(programs unit san-address-undefined) || return 1
    [ -z "$(programs store plain)" ] ||
        scripts/with-services.sh scripts/run-tests.sh $(programs store san-address-undefined)
}
end_to_end() {
    local status log=build/end-to-end.log
    scripts/with-services.sh "$PYTHON" -m pytest -q --no-header -p no:cacheprovider -n 3 --dist loadfile tests/e2e 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    awk '
        /(passed|failed|error).* in [0-9.]+s/ {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) p += $(i - 1)
                if ($i ~ /^(failed|error)/) f += $(i - 1)
            }
        }
        END { print p + 0, f + 0 }' "$log" >>"$TEST_TOTALS"
    return "$status"
}
newer_postgres() {
    scripts/setup-pg18.sh && PG_BIN=$ROOT/build/pg18/bin scripts/with-services.sh scripts/run-tests.sh $(programs store plain)
}

part build make -s -j2 build-tests
part "build with fault points" make -s -j2 all FAULTS=1
part unit scripts/run-tests.sh $(programs unit plain)
[ -z "$(programs store plain)" ] || part store scripts/with-services.sh scripts/run-tests.sh $(programs store plain)
part sanitizers sanitized
[ -z "$(programs store plain)" ] || [ "$(uname -m)" != x86_64 ] || part "store, PostgreSQL 18" newer_postgres
[ ! -d tests/e2e ] || [ -z "$(find tests/e2e -name 'test_*.py')" ] || part end-to-end end_to_end
part chaos make -s chaos-short
if [ -f mk/cuda.mk ]; then
    part "cuda on the emulation" make -s test-cuda-emu
    part "cuda by nvcc" make -s cuda
fi
part model scripts/check-model.sh
part check scripts/check.sh

awk '{p += $1; f += $2} END {printf "%d passed, %d failed\n", p, f}' "$TEST_TOTALS" >build/test-sum
if [ -n "$failed_parts" ]; then
    say "failed:$failed_parts"
fi
cat build/test-sum
[ -z "$failed_parts" ] && ! grep -qv ', 0 failed$' build/test-sum
