#!/usr/bin/env bash
# demo.sh [FOLDER] (or DOCS=FOLDER): starts everything, indexes a folder of real documents (or yours), shows it live, asks it three questions.
set -eu
. "$(dirname "$0")/instance.sh"
folder=${1:-${DOCS:-}}
if [ -n "$folder" ]; then
    # `make demo DOCS='~/papers'` comes here with the tilde still in it.
    # shellcheck disable=SC2088
    [[ $folder != "~/"* ]] || folder=$HOME/${folder:2}
    [ -d "$folder" ] || die "DOCS=$folder: there is no such folder"
    [ -r "$folder" ] && [ -x "$folder" ] || die "DOCS=$folder: $(id -un) may not read it"
    folder=$(cd "$folder" && pwd -P)
    [ "$folder" != / ] || die "DOCS=/: name a folder below it"
    [[ $folder != *:* ]] || die "DOCS=$folder: a folder whose name holds a colon cannot be a source root"
    roots=$(value_of "$RUN/env" OPSTREAM_SOURCE_ROOTS)
    is_below=
    IFS=: read -r -a list <<<"$roots"
    for root in "${list[@]}"; do
        [[ $folder/ != "${root%/}/"* ]] || is_below=1
    done
    if [ -z "$is_below" ]; then
        [ -n "$roots" ] || { scripts/up.sh --quiet && roots=$(value_of "$RUN/env" OPSTREAM_SOURCE_ROOTS); }
        OPSTREAM_SOURCE_ROOTS=$roots:$folder
        export OPSTREAM_SOURCE_ROOTS
        unset OPSTREAM_ENV_FROM
    fi
fi
scripts/up.sh

if [ -z "$folder" ]; then
    # Debian's own manuals: the FAQ and the Developer's Reference, a page a chapter. (Container images leave out /usr/share/doc, so the FAQ may be
    # missing.)
    folder=$RUN/documents/debian
    mkdir -p "$folder"
    for page in /usr/share/developers-reference/*.html /usr/share/doc/debian/FAQ/*.en.html; do
        case ${page##*/} in
            developers-reference.html | index.html | index.en.html | search.html | genindex.html | '*.html' | '*.en.html') continue ;;
        esac
        [ -e "$folder/${page##*/}" ] || cp "$page" "$folder/"
    done
    ls "$folder"/*.html >/dev/null 2>&1 || die "the Debian manuals are not installed: make setup, or make demo DOCS=folder"
    kind=default
else
    kind=own
fi
# shellcheck disable=SC1091
. "$RUN/env"
exec "$PYTHON" scripts/demo.py "$kind" "$folder" "$RUN"
