"""The OpenAPI document and the API itself: answers have the status and the shape that it names, bounds of parameters hold."""
import json
import os
import subprocess

import pytest

from support import rows
from support.api import program
from support.client import Client
from support.stack import Stack

DOCUMENT = json.loads(subprocess.run([program(), "--openapi"], capture_output=True, check=True, timeout=60).stdout)
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
OF_WEB_ROOT = ("/assets/{path}", "/vite.svg")  # there is none in these tests
NUMBERS = [(path, p) for path, methods in DOCUMENT["paths"].items() for p in methods.get("get", {}).get("parameters", []) if p["schema"].get("type") == "integer"]


class World:
    """A user with one collection in it that has a source, a finished document and a vector."""

    def __init__(self, stack):
        self.stack = stack
        self.me = Client.registered(stack.apis[0].url)
        folder = os.path.join(stack.roots, "letters")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "a.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("hello")
        self.collection = rows.ready_collection(stack, self.me, metadata={"a": 1})["id"]
        self.operation = self.me.add_source(self.collection, folder)["id"]
        rows.finish(stack, self.operation)
        self.document = rows.add_document(stack, self.collection, path)
        rows.add_vectors(stack, self.collection, [(self.document, "one", (1, 0, 0, 0))])
        self.source = self.me.must("GET", f"/api/v2/collections/{self.collection}/sources")["items"][0]["id"]
        self.projection = self.me.must("POST", f"/api/v2/collections/{self.collection}/projections", {"method": "pca"})
        stack.sql("""UPDATE projections SET point_count = 0, dim = 4, legend = '[{"label": 0, "text": "all", "count": 0}]', figures = '{}', read_at = now(), completed_at = now()""")
        rows.finish(stack, self.projection["operation_id"])
        self.folder = folder
        self.dataset = self.me.must("POST", "/api/v2/benchmark-datasets", {"name": "d", "queries": [
            {"id": "q", "text": "q", "relevant": [{"document_id": self.document_uuid(stack)}]}]})["id"]
        self.benchmark = self.me.must("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": self.dataset, "collection_id": self.collection,
                                                                     "configurations": {"k": [1]}})["id"]
        stack.sql("UPDATE benchmark_configurations SET metrics = '{}', latency = '{}', details = '{}', completed_at = now()")

    def document_uuid(self, stack):
        return stack.sql_value("SELECT uuid FROM documents LIMIT 1")

    def path(self, template):
        if template.startswith("/api/v2/users/"):
            return template.format(id=1)
        if template == "/api/v2/benchmarks/compare":
            return f"{template}?ids={self.benchmark},{self.benchmark}"
        if template.endswith("/{path}"):
            return template.format(path="opstream.js" if template.startswith("/clients/") else "main.js")
        named = {"operations": self.operation, "benchmarks": self.benchmark, "benchmark-datasets": self.dataset}
        values = {"id": named.get(template.split("/")[3] if template.count("/") > 3 else "", self.collection), "source_id": self.source, "document_id": self.document, "type": "directory",
                  "plugin": "semantic", "pid": self.projection["id"]}
        return template.format(**values)


@pytest.fixture(scope="module")
def world():
    stack = Stack(apis=1, workers=0)
    embedder = rows.FakeEmbedder()
    embedder.register(stack, "w")
    yield World(stack)
    embedder.close()
    stack.close()


def faults(value, schema, where="answer"):
    """What does not fit; members that the document does not know are faults too where it names members at all."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    kind = schema.get("type")
    if value is None:
        return [] if schema.get("nullable") or kind is None else [f"{where} is null"]
    if kind and (not isinstance(value, TYPES[kind]) or isinstance(value, bool) != (kind == "boolean")):
        return [f"{where} is no {kind}: {value!r}"]
    if kind == "array":
        return [f for i, item in enumerate(value) for f in faults(item, schema["items"], f"{where}[{i}]")]
    members = schema.get("properties")
    if kind != "object" or not members:
        return []
    return ([f"{where} lacks {name}" for name in schema.get("required", []) if name not in value] + [f"{where} has an unknown {name}" for name in value if name not in members] +
            [f for name, item in value.items() if name in members for f in faults(item, members[name], f"{where}.{name}")])


def check(method, template, answer):
    responses = DOCUMENT["paths"][template][method.lower()]["responses"]
    assert str(answer.status) in responses and answer.status < 300, f"{method} {template}: {answer}"
    content = responses[str(answer.status)].get("content")
    if not content:
        assert answer.raw == b""
        return
    if "application/json" in content:
        assert answer.headers["Content-Type"] == "application/json"
        assert faults(answer.json, content["application/json"]["schema"]) == []


@pytest.mark.parametrize("template", [path for path, methods in DOCUMENT["paths"].items() if "get" in methods and path not in OF_WEB_ROOT])
def test_what_can_be_read_is_as_documented(world, template):
    check("GET", template, world.me.ask("GET", world.path(template)))


def test_what_can_be_done_is_as_documented(world):
    me, name = world.me, "u" + os.urandom(6).hex()
    account = {"username": name, "email": name + "@example.org", "password": "correct horse battery"}
    check("POST", "/api/auth/register", me.ask("POST", "/api/auth/register", account))
    signed_in = me.ask("POST", "/api/auth/login", account)
    check("POST", "/api/auth/login", signed_in)
    refreshed = me.ask("POST", "/auth/refresh", {"refresh_token": signed_in.json["refresh_token"]})
    check("POST", "/auth/refresh", refreshed)
    check("POST", "/api/auth/logout", me.ask("POST", "/api/auth/logout", {"refresh_token": refreshed.json["refresh_token"]}))
    made = me.ask("POST", "/api/v2/collections", {"name": name})
    check("POST", "/api/v2/collections", made)
    one = "/api/v2/collections/" + made.json["id"]
    check("PUT", "/api/v2/collections/{id}", me.ask("PUT", one, {"description": "d"}))
    rows.finish(world.stack, made.json["initial_operation_id"])
    added = me.ask("POST", one + "/sources", {"source_path": world.folder})
    check("POST", "/api/v2/collections/{id}/sources", added)
    check("DELETE", "/api/v2/operations/{id}", me.ask("DELETE", "/api/v2/operations/" + added.json["id"]))
    check("DELETE", "/api/v2/collections/{id}", me.ask("DELETE", one))
    check("PUT", "/api/v2/preferences", me.ask("PUT", "/api/v2/preferences", {"search": {"top_k": 5}}))
    check("POST", "/api/v2/preferences/reset/search", me.ask("POST", "/api/v2/preferences/reset/search"))
    check("POST", "/api/v2/directory-scan/preview", me.ask("POST", "/api/v2/directory-scan/preview", {"path": world.folder}))
    found = me.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [world.collection]})
    assert found.json["total_results"] == 1
    check("POST", "/api/v2/search", found)
    check("POST", "/api/v2/search/single", me.ask("POST", "/api/v2/search/single", {"query": "q", "collection_id": world.collection}))


@pytest.mark.parametrize("template, parameter", NUMBERS)
def test_the_bounds_of_parameters_are_those_that_are_documented(world, template, parameter):
    path, name = world.path(template), parameter["name"]
    least, most = int(parameter["schema"]["minimum"]), int(parameter["schema"]["maximum"])
    for value, status in ((least, 200), (most, 200), (least - 1, 422), (most + 1, 422), ("x", 422)):
        answer = world.me.ask("GET", f"{path}?{name}={value}")
        assert answer.status == status, f"{name}={value}: {answer}"
        if status == 422:
            assert answer.json["detail"][0]["loc"] == ["query", name]
