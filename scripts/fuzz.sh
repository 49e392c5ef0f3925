#!/usr/bin/env bash
# fuzz.sh [TARGET…]: builds the fuzzers of tests/fuzz by clang and runs each for FUZZ_SECONDS (10). What they find is left in
# build/fuzz/TARGET-crash-*; what they learn stays in build/fuzz/corpus.
set -u
. "$(dirname "$0")/lib.sh"
export OPSTREAM_MODEL_DIR=${OPSTREAM_MODEL_DIR:-$ROOT/build/models}
sanitizers=address,undefined,fuzzer-no-link
built=build/san-${sanitizers//,/-}-clang
status=0

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(for t in tests/fuzz/fuzz_*.c; do t=${t##*/fuzz_}; echo "${t%.c}"; done)
mkdir -p build/fuzz/corpus
libraries=("$built/libapi.a" "$built/libworker.a" "$built/libcommon.a")
make -s -j2 CC=clang SAN="$sanitizers" "${libraries[@]}" || die "fuzz: the libraries do not build"

# Real files to begin with; the archive bomb is left out, being slow.
seed() {
    mkdir -p "build/fuzz/corpus/$1"
    case $1 in
        html) cp tests/golden/documents/*.html "build/fuzz/corpus/$1" ;;
        docx) cp tests/golden/documents/{guide,malformed,entities,cut}.docx "build/fuzz/corpus/$1" ;;
        text) cp tests/golden/documents/*.{txt,md,csv} "build/fuzz/corpus/$1" ;;
        *) cp "tests/fuzz/seeds/$1"/* "build/fuzz/corpus/$1" 2>/dev/null ;;
    esac
}

for t in "${targets[@]}"; do
    program=build/fuzz/fuzz_$t
    clang -std=gnu17 -D_GNU_SOURCE -g -O1 -I. -isystem "$(pg_config --includedir)" -isystem /usr/include/libxml2 -Wall -Wextra -Werror \
        -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -pthread -o "$program" "tests/fuzz/fuzz_$t.c" \
        -Wl,--start-group "${libraries[@]}" -Wl,--end-group -lpq -lhiredis -lcjson -lssl -lcrypto -largon2 -lcrypt -lmicrohttpd -lxml2 \
        -larchive -lmagic -luchardet -lutf8proc -lseccomp -lwebsockets -luv -lcurl -lz -ldl -lm || { say "fuzz: $t does not build"; status=1; continue; }
    seed "$t"
    if "$program" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=20 -rss_limit_mb=3000 -max_len=65536 -close_fd_mask=3 \
        -artifact_prefix="build/fuzz/$t-" "build/fuzz/corpus/$t" >"build/fuzz/$t.log" 2>&1; then
        say "$(printf '%-16s %s' "$t" "$(tail -n 1 "build/fuzz/$t.log" | cut -c1-70)")"
    else
        say "fuzz: $t failed; see build/fuzz/$t.log"
        status=1
    fi
done
[ "$status" = 0 ] && say "fuzz: clean"
exit "$status"
