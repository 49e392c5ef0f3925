#!/usr/bin/env bash
# run-tests.sh PROGRAM…: runs cmocka programs one after another, prints the output of those that fail, and ends with the sum over all. A
# program that reports no test counts as failed.
set -u
. "$(dirname "$0")/lib.sh"
passed=0 failed=0
for program in "$@"; do
    name=$(basename "$program")
    out=$(timeout "${TEST_TIMEOUT:-300}" "$program" 2>&1)
    status=$?
    ok=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' <<<"$out" | awk '{n += $1} END {print n + 0}')
    bad=$(sed -n 's/^\[  FAILED  \] [^:]*: \([0-9]*\) test.*/\1/p' <<<"$out" | awk '{n += $1} END {print n + 0}')
    if [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; then
        [ "$bad" -gt 0 ] || bad=1
        printf '%s\n' "$out" | grep -v '^\[ *\(RUN\|OK\) *\]' | tail -n 60
        printf '%-32s FAILED (exit %d)\n' "$name" "$status"
    else
        printf '%-32s %3d passed\n' "$name" "$ok"
    fi
    passed=$((passed + ok)) failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ -z "${TEST_TOTALS:-}" ] || echo "$passed $failed" >>"$TEST_TOTALS"
[ "$failed" -eq 0 ]
