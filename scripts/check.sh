#!/usr/bin/env bash
# Format, static analysis, and builds by gcc and clang. (Finds the files by itself: git says nothing in a checkout of another user, or in a tarball.)
set -u
. "$(dirname "$0")/lib.sh"
status=0
fault() { say "check: $1"; status=1; }
mapfile -t sources < <(find api common sql tests worker -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' | sort)
mkdir -p build
make -s build/queries.h build/migrations.h build/web_files.def
clang-format --dry-run -Werror "${sources[@]}" 2>build/format.log || { head -n 40 build/format.log; fault "run make format"; }
make -s -j2 all CC=gcc || fault "gcc"
make -s -j2 all CC=clang || fault "clang"
mapfile -t units < <(find api common sql worker -name '*.c' ! -name 'unicode_tables.*' | sort)
flags=(-std=gnu17 -D_GNU_SOURCE -I. "-isystem$(pg_config --includedir)" -isystem/usr/include/libxml2)
printf '%s\n' "${units[@]}" | xargs -P 2 -n 4 sh -c 'clang-tidy --quiet "$@" -- '"${flags[*]}"' 2>/dev/null' tidy >build/tidy.log ||
    { grep -E 'warning|error' build/tidy.log | head -n 40; fault "clang-tidy (build/tidy.log)"; }
cppcheck --quiet --error-exitcode=1 --inline-suppr --suppressions-list=.cppcheck-suppressions --enable=warning,portability \
    --std=c11 -j2 -I. "${units[@]}" 2>build/cppcheck.log || { head -n 40 build/cppcheck.log; fault "cppcheck"; }
python3 scripts/check-lists.py || fault "the lists"
scripts/check-deploy.sh || fault "deploy"
while IFS= read -r module; do
    node --check --input-type=module - <"$module" 2>build/node.log || { head -n 20 build/node.log; fault "$module"; }
done < <(find api -name '*.js')
for s in scripts/*.sh .ci/run; do bash -n "$s" || fault "$s"; done
[ "$status" = 0 ] && say "check: clean"
exit "$status"
