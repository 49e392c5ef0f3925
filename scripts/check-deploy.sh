#!/usr/bin/env bash
# Holds deploy/ against the programs, offline: do the settings, ports, probes and packages that it names exist, and is what must be there, there?
set -eu
. "$(dirname "$0")/lib.sh"
exec "$PYTHON" - <<'PY'
import glob
import json
import os
import re
import subprocess
import sys

import yaml

faults = []


def fault(where, what):
    faults.append(f"{where}: {what}")


def read(path):
    with open(path) as file:
        return file.read()


settings = {}  # name or alias -> default
for match in re.finditer(r'^SETTING\(\w+,\s*\w+,\s*"([A-Z0-9_]+)",\s*(?:NULL|"([A-Z0-9_]+)"),\s*(?:NULL|"([^"]*)")', read("common/settings.def"), re.M):
    for name in filter(None, match.groups()[:2]):
        settings[name] = match.group(3)
NOT_OURS = {"TMPDIR", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
routes = set(re.findall(r'^ROUTE\(GET, "([^"]+)"', read("api/routes.def"), re.M)) if os.path.exists("api/routes.def") else None
worker_paths = {"/healthz", "/readyz", "/metrics"}


def check_name(where, name):
    if name not in settings and name not in NOT_OURS:
        fault(where, f"{name} is no setting of common/settings.def")


# --- images: the base is an argument, nobody runs as root, the binary is process 1, its libraries are installed

stages, stage, base_is_argument = {}, None, False
for line in re.sub(r"\\\n", " ", read("deploy/Dockerfile")).splitlines():
    word = line.split(None, 1)
    if not word or line.startswith("#"):
        continue
    if word[0] == "ARG" and stage is None:
        base_is_argument = word[1].startswith("BASE=")
    if word[0] == "FROM":
        if "${BASE}" not in line:
            fault("Dockerfile", f"`{line}` does not use ${{BASE}}")
        stage = line.split(" AS ")[-1].strip()
        stages[stage] = []
    elif stage:
        stages[stage].append((word[0], word[1] if len(word) > 1 else ""))
if not base_is_argument:
    fault("Dockerfile", "ARG BASE is missing")


def owner(library):
    """The Debian package that has this library here, or None."""
    out = subprocess.run(["dpkg", "-S", library], capture_output=True, text=True, check=False).stdout
    return out.split(":")[0] or None


for program in ("api", "worker"):
    lines = stages.get(program)
    if lines is None:
        fault("Dockerfile", f"there is no stage {program}")
        continue
    users = [rest for word, rest in lines if word == "USER"]
    if not users or not users[-1].isdigit() or users[-1] == "0":
        fault("Dockerfile", f"{program}: USER must be a number other than 0 (runAsNonRoot checks numbers only)")
    if not any(word == "ENTRYPOINT" and rest.strip() == f'["/usr/local/bin/opstream-{program}"]' for word, rest in lines):
        fault("Dockerfile", f"{program}: ENTRYPOINT must be the binary itself, so that it is process 1")
    for word, rest in lines:
        if word == "ENV":
            for name in re.findall(r"([A-Z0-9_]+)=", rest):
                check_name(f"Dockerfile {program}", name)
    binary = f"build/bin/opstream-{program}"
    if os.path.exists(binary):
        installed = set(" ".join(rest for word, rest in lines if word == "RUN").split())
        needed = re.findall(r"NEEDED.*\[(.+)\]", subprocess.run(["readelf", "-d", binary], capture_output=True, text=True, check=True).stdout)
        found = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        for library in needed:
            path = re.search(rf"{re.escape(library)} => (\S+)", found)
            package = path and owner(os.path.basename(path.group(1)))
            if package and package not in installed and not re.fullmatch(r"libc6(-.+)?|libgcc-s1|libstdc\+\+6", package):
                fault("Dockerfile", f"{program} needs {library}, of package {package}, which the image does not install")

# --- Kubernetes

documents = []
for path in sorted(glob.glob("deploy/kubernetes/*.yaml")):
    documents += [(os.path.basename(path), d) for d in yaml.safe_load_all(read(path)) if d]
by_kind = {}
for where, document in documents:
    for field in ("apiVersion", "kind", "metadata"):
        if field not in document:
            fault(where, f"a document without {field}")
    by_kind[document.get("kind"), document.get("metadata", {}).get("name")] = (where, document)
    if document.get("kind") == "Secret":
        fault(where, "a Secret in the repository")
    if document.get("kind") == "ConfigMap":
        for name in document["data"]:
            check_name(where, name)


def check_pod(where, template, probes, paths, least_grace):
    pod = template["spec"]
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        fault(where, "the pod's securityContext needs runAsNonRoot and seccompProfile RuntimeDefault")
    if pod.get("automountServiceAccountToken") is not False:
        fault(where, "automountServiceAccountToken: false is missing")
    if least_grace and pod.get("terminationGracePeriodSeconds", 30) < least_grace:
        fault(where, f"terminationGracePeriodSeconds is less than {least_grace} s, which draining takes")
    for container in pod["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or not context.get("readOnlyRootFilesystem") or context.get("capabilities", {}).get("drop") != ["ALL"]:
            fault(where, f"container {container['name']}: securityContext must forbid escalation, writing to the root and every capability")
        ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
        for probe in probes:
            get = container.get(probe, {}).get("httpGet", {})
            if get.get("port") not in ports and get.get("port") not in ports.values():
                fault(where, f"{probe} asks no port of its container")
            if paths is not None and get.get("path") not in paths:
                fault(where, f"{probe}: the program does not serve {get.get('path')}")
        for entry in container.get("env", []):
            check_name(where, entry["name"])
            if re.search("SECRET|PASSWORD|API_KEY|_URL$", entry["name"]) and "value" in entry and entry["name"] != "OPSTREAM_EMBED_URL":
                fault(where, f"{entry['name']} is a secret and must come from the Secret")
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        if mounts - {volume["name"] for volume in pod.get("volumes", [])}:
            fault(where, "a volumeMount without its volume")


drain, grace = int(settings["DRAIN_SECONDS"]), int(settings["CANCEL_GRACE_SECONDS"])
for name, paths, least in (("opstream-api", routes, drain + 5), ("opstream-worker", worker_paths, drain + grace)):
    where, document = by_kind.get(("Deployment", name), (None, None))
    if not document:
        fault("kubernetes", f"no Deployment {name}: API and workers are scaled each on its own")
        continue
    template = document["spec"]["template"]
    check_pod(where, template, ("startupProbe", "readinessProbe", "livenessProbe"), paths, least)
    labels = template["metadata"]["labels"]
    if any(labels.get(k) != v for k, v in document["spec"]["selector"]["matchLabels"].items()):
        fault(where, "the selector does not match the pods' labels")
    if by_kind.get(("Service", name)) and any(labels.get(k) != v for k, v in by_kind["Service", name][1]["spec"]["selector"].items()):
        fault(where, "the Service's selector does not match the pods' labels")
where, job = by_kind.get(("Job", "opstream-migrate"), (None, None))
if not job:
    fault("kubernetes", "no Job opstream-migrate")
else:
    check_pod(where, job["spec"]["template"], (), None, 0)
    if job["spec"]["template"]["spec"]["containers"][0].get("args") != ["--migrate"]:
        fault(where, "the Job must run the API with --migrate")
for what in (("Service", "opstream-api"), ("PodDisruptionBudget", "opstream-api")):
    if what not in by_kind:
        fault("kubernetes", f"no {what[0]} {what[1]}")

# --- compose

compose = yaml.safe_load(read("deploy/compose.yaml"))
services = compose["services"]
for name in ("postgres", "redis", "migrate", "api", "worker"):
    if name not in services:
        fault("compose.yaml", f"no service {name}")
for name, service in services.items():
    environment = service.get("environment", {})
    for key in environment:
        if name not in ("postgres", "redis"):
            check_name("compose.yaml " + name, key)
    target = service.get("build", {}).get("target")
    if target and target not in stages:
        fault("compose.yaml", f"{name}: the Dockerfile has no stage {target}")
for name in ("api", "worker"):
    if services.get(name, {}).get("depends_on", {}).get("migrate", {}).get("condition") != "service_completed_successfully":
        fault("compose.yaml", f"{name} does not wait for migrate")

# --- Prometheus and Grafana: every metric that they name exists, and what operators must see is shown

metrics = {}  # name in Prometheus -> labels
for match in re.finditer(r'^METRIC\(\w+,\s*(\w+),\s*"([^"]*)",\s*"([a-z0-9_]+)"', read("common/metrics.def"), re.M):
    kind, labels, name = match.groups()
    for suffix in ("_bucket", "_sum", "_count") if kind == "HISTOGRAM" else ("",):
        metrics[name + suffix] = set(filter(None, labels.split(","))) | {"le", "job", "instance"}
WORDS = {"sum", "max", "min", "by", "on", "and", "or", "rate", "increase", "absent", "histogram_quantile", "up"}


def check_expression(where, text):
    used = set()
    for match in re.finditer(r'"[^"]*"|\[\w+\]|([a-z_][a-z0-9_]*)(\{[^}]*\})?', re.sub(r"(by|on) \([^)]*\)", " ", text)):
        name, labels = match.groups()
        if not name or name in WORDS:
            continue
        used.add(name)
        if name not in metrics:
            fault(where, f"{name} is no metric of common/metrics.def")
        for label in re.findall(r"(\w+)[=!]", labels or ""):
            if label not in metrics.get(name, {label}):
                fault(where, f"{name} has no label {label}")
    for label in (label.strip() for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(",")):
        if used and not any(label in metrics.get(name, {label}) for name in used):
            fault(where, f"nothing in `{text}` has the label {label}")
    return used


shown = set()
for path in sorted(glob.glob("deploy/prometheus/*.yaml")):
    for rule in (rule for group in yaml.safe_load(read(path))["groups"] for rule in group["rules"]):
        shown |= check_expression(f"{os.path.basename(path)} {rule['alert']}", rule["expr"])
        page, _, title = rule["annotations"]["runbook"].partition("#")
        if not os.path.exists(page) or title not in {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in read(page).splitlines() if line.startswith("#")}:
            fault(os.path.basename(path), f"{rule['alert']}: there is no {rule['annotations']['runbook']}")
for path in sorted(glob.glob("deploy/grafana/*.json")):
    for panel in json.loads(read(path))["panels"]:
        for target in panel["targets"]:
            shown |= check_expression(f"{os.path.basename(path)} `{panel['title']}`", target["expr"])
for name in ("worker_leases_lost_total", "workers_swept_total", "operations_swept_total", "operation_hand_backs_total", "operation_retries_total",
             "operations_orphaned_total", "operation_fence_refusals_total", "reconciler_pushes_total", "operations_announced_late_total"):
    if name not in shown:
        fault("deploy", f"neither an alert nor the dashboard shows {name}")
for name in sorted({re.sub("_(bucket|sum|count)$", "", name) for name in metrics} - set(re.findall(r"`([a-z0-9_]+)`", read("docs/operating.md")))):
    fault("docs/operating.md", f"the metric {name} is not described")

for line in faults:
    print(line)
sys.exit(1 if faults else 0)
PY
