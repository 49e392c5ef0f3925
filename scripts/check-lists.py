#!/usr/bin/env python3
"""What the compiler does not see: rows of the lists (queries, settings, metrics, schemas, statuses, fault points) and functions of headers that nothing uses,
includes across the borders of api/, worker/ and common/, and libraries that are included in more places than the one that wraps them."""
import os
import re
import subprocess
import sys

PROGRAM = ("api/", "common/", "sql/", "worker/")

# header -> the files that may include it. A library has one wrapper, so that replacing it is a change to one file.
WRAPPERS = {
    "archive.h": ["worker/extract/docx.c"],
    "argon2.h": ["common/password.c"],
    "cjson/cJSON.h": ["common/json.h"],
    "crypt.h": ["common/password.c"],
    "cuda_runtime.h": ["worker/embed/cuda/"],
    "curl/curl.h": ["api/worker_call.c"],
    "hiredis/async.h": ["api/relay/subscriber.c"],
    "hiredis/hiredis.h": ["common/redis.h"],
    "libpq-fe.h": ["common/db.h"],
    "libwebsockets.h": ["api/relay/relay.c"],
    "magic.h": ["worker/extract/format.c"],
    "microhttpd.h": ["api/server_state.h", "worker/internal_http.c"],  # one a program
    "seccomp.h": ["worker/extract/lockdown.c"],
    "uchardet/uchardet.h": ["worker/extract/charset.c"],
    "zlib.h": ["api/relay/deflate.c", "api/server_answer.c"],
}
BORDERS = {"common/": ("api/", "worker/"), "sql/": ("api/", "worker/"), "api/": ("worker/",), "worker/": ("api/",)}

faults = []


def fault(where, what):
    faults.append(f"{where}: {what}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def rows(path, macro):
    """The arguments of each row of a list, as written."""
    return [re.split(r"\s*,\s*", m) for m in re.findall(rf"^{macro}\((.*)", read(path), re.M)]


names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True).stdout.split("\n")
files = {n: read(n) for n in names if re.search(r"\.(c|h|cu|cc|def)$", n) and os.path.exists(n)}
program = {n: t for n, t in files.items() if n.startswith(PROGRAM)}
bare = {n: re.sub(r"/\*.*?\*/", "", t, flags=re.S) for n, t in program.items()}  # without comments
words = {n: set(re.findall(r"\w+", t)) for n, t in bare.items()}
all_words = set().union(*words.values())
test_words = set().union(*(set(re.findall(r"\w+", t)) for n, t in files.items() if n.startswith("tests/")))


def used(word, but=()):
    return any(word in w for n, w in words.items() if n not in but)


for path in sorted(n for n in names if n.startswith("sql/queries/") and n.endswith(".sql")):
    if "SQL_" + os.path.basename(path)[:-4].upper() not in all_words | test_words:
        fault(path, "no code runs this query")

for row in rows("common/settings.def", "SETTING"):
    if not used(row[1], ("common/settings.def",)) and "accepted and not used" not in ",".join(row):
        fault("common/settings.def", f"nothing reads {row[1]}")

for row in rows("common/metrics.def", "METRIC"):
    if not used("METRIC_" + row[0], ("common/metrics.def",)):
        fault("common/metrics.def", f"nothing measures {row[0]}")

for row in rows("common/status.def", "STATUS"):
    if not used("STATUS_" + row[0].strip(), ("common/status.def",)):
        fault("common/status.def", f"nothing ends as {row[0]}")

for row in rows("common/fault.def", "FAULT_POINT"):
    if not any(re.search(rf"\bFAULT\({row[0]}\b", text) for text in bare.values()):
        fault("common/fault.def", f"no code passes {row[0]}")

schemas = bare["api/schemas.def"]
for name in re.findall(r"^SCHEMA_BEGIN\((\w+)", schemas, re.M):
    uses = len(re.findall(rf"\b{name}\b", re.sub(rf"^(SCHEMA_BEGIN|SCHEMA_END|FIELD)\({name}\b", "", schemas, flags=re.M)))
    if not uses and name not in words["api/routes.def"] | words["api/openapi.def"] and not used("SCHEMA_" + name, ("api/schemas.def",)):
        fault("api/schemas.def", f"no route and no schema uses {name}")

for path, text in sorted(bare.items()):
    if not path.endswith(".h") or path.startswith("worker/embed/cuda"):
        continue
    own = (path, path[:-2] + ".c")
    for name in re.findall(r"^(?!static|#|typedef|extern|struct \w+ \{|enum \w+ \{)[a-z][\w *]*?\b(\w+)\([^;{]*\)[^;{]*;", text, re.M):
        if used(name, own) or name.endswith("_for_tests") or len(re.findall(rf"\b{name}\b", text)) > 1:
            continue
        inside = len(re.findall(rf"\b{name}\b", bare.get(own[1], ""))) > 1
        if name not in test_words:
            fault(path, f"{name} is used {'in its own file alone: make it static' if inside else 'nowhere'}")

for path, text in sorted(program.items()):
    for quoted in re.findall(r'^\s*#include "([^"]+)"', text, re.M):
        for part, others in BORDERS.items():
            if path.startswith(part) and quoted.startswith(others):
                fault(path, f"{part} must not know {quoted}")
    for header in re.findall(r"^\s*#include <([^>]+)>", text, re.M):
        if header in WRAPPERS and not path.startswith(tuple(WRAPPERS[header])):
            fault(path, f"<{header}> is wrapped by {', '.join(WRAPPERS[header])}")

for line in faults:
    print(line)
sys.exit(1 if faults else 0)
