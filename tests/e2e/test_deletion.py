"""Deleting a collection with a real worker: gone at once for readers, then everywhere."""
import json
import os

import pytest

from support.client import Client
from support.stack import Stack, wait_for


@pytest.fixture(scope="module")
def all_of_it():
    made = Stack(apis=1, workers=1, DOCUMENT_REMOVAL_BATCH_SIZE=10)
    for i in range(35):
        with open(os.path.join(made.roots, f"{i:02}.txt"), "w", encoding="utf-8") as file:
            file.write(f"Letter number {i} speaks of the sea, of ships and of the wind in their sails.")
    yield made
    made.close()


def events(stack, operation_id):
    out = stack.redis_cli("--json", "XRANGE", f"{stack.name}:operation-progress:{operation_id}", "-", "+")
    return [json.loads(fields[fields.index("message") + 1]) for _, fields in json.loads(out or "[]")]


def test_deletion_removes_everything_and_tells_how_it_goes(all_of_it):
    me = Client.registered(all_of_it.apis[0].url)
    made = me.must("POST", "/api/v2/collections", {"name": "letters", "source_path": all_of_it.roots}, status=201)
    me.wait_over(made["operation_id"])
    shown = me.show(made["id"])
    assert shown["status"] == "ready" and shown["document_count"] == 35 and shown["vector_count"] >= 35
    assert len(me.search(made["id"], "ships at sea")["results"]) == 3
    generation = all_of_it.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", made["id"])
    answer = me.ask("DELETE", "/api/v2/collections/" + made["id"])
    assert answer.status == 204
    operation = answer.headers["X-Operation-ID"]
    assert me.ask("POST", "/api/v2/search", {"query": "ships", "collection_uuids": [made["id"]]}).status == 404
    over = me.wait_over(operation)
    assert over["collection_id"] == made["id"] and over["progress"] == 100
    assert all_of_it.sql_value("SELECT to_regclass('vec.g' || :v1) IS NULL", generation) == "t"
    for table in ("collections", "documents", "chunks", "sources", "generations"):
        assert all_of_it.sql_value(f"SELECT count(*) FROM {table}") == "0", table
    wait_for("the last event", lambda: any(e["type"] == "operation_completed" for e in events(all_of_it, operation)))
    kinds = [e["type"] for e in events(all_of_it, operation)]
    assert kinds[0] == "operation_started" and "deleting" in kinds and kinds[-2:] == ["delete_completed", "operation_completed"]
    assert me.operation(made["operation_id"])["collection_id"] == made["id"]  # history outlives the collection


def test_a_deletion_survives_the_death_of_its_worker(all_of_it):
    me = Client.registered(all_of_it.apis[0].url)
    made = me.must("POST", "/api/v2/collections", {"name": "letters", "source_path": all_of_it.roots}, status=201)
    me.wait_over(made["operation_id"])
    operation = me.ask("DELETE", "/api/v2/collections/" + made["id"]).headers["X-Operation-ID"]
    all_of_it.workers[0].kill()
    all_of_it.workers[0].start()
    me.wait_over(operation)
    for table in ("collections", "documents", "chunks", "sources", "generations"):
        assert all_of_it.sql_value(f"SELECT count(*) FROM {table}") == "0", table
