#!/usr/bin/env bash
# Checks the model of the protocol (docs/model) with spin: every invariant and every promise that something happens at last, exhaustively, and
# that each of the broken variants is found to be broken. VERBOSE=1 prints what each run took.
set -u
. "$(dirname "$0")/lib.sh"
command -v spin >/dev/null || die "spin is not installed: make setup"
MODEL=$ROOT/docs/model/operation.pml
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
passed=0 failed=0
END=what_is_accepted_ends_and_frees_its_collection
PROMISES="$END an_end_is_announced every_worker_comes_to_rest"
ALL="-DCRASHES -DLAPSES -DDRAINS -DLOST_ANSWERS"

# build COMPILER-FLAGS DEFINITIONS: makes ./pan.
build() {
    local flags=$1
    shift
    rm -f pan pan.* ./*.trail
    # shellcheck disable=SC2086
    spin -a "$@" "$MODEL" >out 2>&1 && gcc -w $flags -DMEMLIM=4000 -o pan pan.c >>out 2>&1
}
# run NAME holds|breaks ARGUMENT…: a run that was not exhaustive, or did not run at all, is no result.
run() {
    local name=$1 wanted=$2 result=unclear started=$EPOCHREALTIME
    shift 2
    [ ! -x pan ] || timeout "${TEST_TIMEOUT:-300}" ./pan "$@" >out 2>&1
    if grep -q 'errors: [1-9]' out; then
        result=breaks
    elif grep -q 'errors: 0$' out && ! grep -Eq 'not completed|max search depth too small|out of memory' out; then
        result=holds
    fi
    [ -z "${VERBOSE:-}" ] || printf '%-60s %-7s %9s states %6.1f s\n' "$name" "$result" "$(awk '/states, stored/ {print $1}' out)" \
        "$(awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN {print b - a}')"
    if [ "$result" = "$wanted" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        grep -E '^pan:|error|Error|states, stored' out | head -n 10
        say "model: $name: $result, but should be: $wanted"
    fi
}
# shellcheck disable=SC2086
invariants() { # NAME DEFINITIONS
    local name=$1
    shift
    build "-O2 -DSAFETY -DNOCLAIM" "$@"
    run "invariants: $name" holds -m100000
}
promises() {
    local name=$1 promise
    shift
    build "-O1 -DNFAIR=4" -DFAIR "$@"
    for promise in $PROMISES; do run "$promise: $name" holds -a -f -N "$promise" -m200000; done
    run "cancelled_stays_cancelled: $name" holds -a -N cancelled_stays_cancelled -m200000
}
broken() { # VARIANT DEFINITIONS: an invariant does not hold
    local name=$1
    shift
    build "-O0 -DSAFETY -DNOCLAIM" "-D$name" "$@"
    run "$name is found out" breaks -m100000
}
never() { # VARIANT PROMISE DEFINITIONS: a promise is not kept
    local name=$1 promise=$2
    shift 2
    build "-O0 -DNFAIR=4" -DFAIR "-D$name" "$@"
    run "$name is found out by $promise" breaks -a -f -N "$promise" -m200000
}

# shellcheck disable=SC2086
{
    invariants "two faults" $ALL -DFAULTS=2 -DFLUSHES=0 -DDOCS=1
    invariants "one fault, Redis lost, two documents" $ALL -DFAULTS=1 -DFLUSHES=1 -DDOCS=2
    invariants "two crashes or lapses, two documents" -DCRASHES -DLAPSES -DFAULTS=2 -DFLUSHES=0 -DDOCS=2
    invariants "two crashes or power cuts, Redis lost" -DCRASHES -DPOWER_CUTS -DFAULTS=2 -DFLUSHES=1 -DDOCS=1
    promises "a crash or a lapse" -DCRASHES -DLAPSES -DFAULTS=1 -DFLUSHES=0 -DDOCS=1
    promises "a drain, a lost answer or a power cut" -DDRAINS -DLOST_ANSWERS -DPOWER_CUTS -DFAULTS=1 -DFLUSHES=0 -DDOCS=1
    promises "Redis lost" -DFAULTS=0 -DFLUSHES=1 -DDOCS=1
    broken NO_FENCE $ALL -DFAULTS=1 -DFLUSHES=0
    broken NO_CLOSED_CHECK $ALL -DFAULTS=1 -DFLUSHES=0
    broken NO_ATTEMPT_CHECK $ALL -DFAULTS=1 -DFLUSHES=0
    broken SWEEP_WITHOUT_LAPSE $ALL -DFAULTS=1 -DFLUSHES=0
    broken REFUSE_LAST_OF_OLD -DPOWER_CUTS -DFAULTS=1 -DFLUSHES=0
    never ACK_ON_POP $END -DCRASHES -DFAULTS=1 -DFLUSHES=0 -DDOCS=1
    never NO_ORPHANS $END -DLOST_ANSWERS -DFAULTS=1 -DFLUSHES=0 -DDOCS=1
    never SWEEP_LAPSED_ONLY $END -DLAPSES -DLOST_ANSWERS -DFAULTS=2 -DFLUSHES=0 -DDOCS=1
    never NO_ANNOUNCER an_end_is_announced -DFAULTS=0 -DFLUSHES=0 -DDOCS=1
}
say "$passed passed, $failed failed"
[ -z "${TEST_TOTALS:-}" ] || echo "$passed $failed" >>"$TEST_TOTALS"
[ "$failed" -eq 0 ]
