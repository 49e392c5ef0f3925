#!/usr/bin/env bash
# Files of the page and the clients -> the table that api/web_files.c embeds: what it prints is EMBED(number, name, file, bytes, packed file, bytes, tag), a row
# a file. Packed forms go below the folder $1; the paths are those that the assembler opens, from the top of the tree.
set -eu
packed=$1
shift
n=0
for file in "$@"; do
    name=${file#api/}
    mkdir -p "$packed/$(dirname "$name")"
    gzip -9 -n -c "$file" >"$packed/$name.gz"
    tag=$(sha256sum "$file" | cut -c1-20)
    echo "EMBED($n, \"$name\", \"$file\", $(stat -c %s "$file"), \"$packed/$name.gz\", $(stat -c %s "$packed/$name.gz"), \"$tag\")"
    n=$((n + 1))
done
