"""Projections with a real worker: every method built and read in binary, the same by the same seed, cancelled, killed, removed; who may do what."""
import json
import os
import secrets
import struct
import time

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import wait_for

METHODS = ("pca", "umap", "tsne")
SYNTHETIC = 4000


@pytest.fixture(scope="module")
def world():
    from support.stack import Stack
    stack = Stack(apis=1, workers=1)
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def owner(world):
    return Client.registered(world.apis[0].url)


def filled(stack, user, count=30, **more):
    """A collection of documents about a few things, indexed."""
    folder = os.path.join(stack.roots, secrets.token_hex(4))
    stories = list(docs.STORIES.values())
    for i in range(count):
        docs.write(folder, f"{i:02}.{'txt' if i % 3 else 'md'}", f"{stories[i % len(stories)]} This is letter {i}, on paper {secrets.token_hex(4)}.")
    collection = user.collection(**more)["id"]
    user.index(collection, folder)
    return collection


def grow(stack, collection, count=SYNTHETIC):
    """More chunks than a test has time to embed: around a hundred centres, written behind the programs' backs."""
    generation = stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection)
    stack.sql(f"""
        BEGIN;
        SELECT setseed(0.5);
        CREATE TEMP TABLE centres AS SELECT g, array_agg(random() - 0.5) AS c FROM generate_series(0, 99) g, generate_series(1, 384) GROUP BY g;
        CREATE TEMP TABLE target AS SELECT d.id AS document_id, d.collection_id, d.live_version AS version, count(*) OVER () AS n, row_number() OVER (ORDER BY d.id) - 1 AS r
            FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1' AND d.live_version > 0;
        CREATE TEMP TABLE made AS SELECT i, t.*, nextval(pg_get_serial_sequence('chunks', 'id')) AS chunk_id FROM generate_series(1, {count}) i JOIN target t ON t.r = i % t.n;
        INSERT INTO chunks (collection_id, id, document_id, version, ordinal, content, tokens, start_byte, end_byte)
            OVERRIDING SYSTEM VALUE SELECT collection_id, chunk_id, document_id, version, 1000 + i, 'chunk ' || i, 2, 0, 1 FROM made;
        INSERT INTO vec.g{generation} (chunk_id, document_id, version, embedding)
            SELECT m.chunk_id, m.document_id, m.version, l2_normalize((SELECT array_agg(x + 0.4 * (random() - 0.5)) FROM unnest(c.c) x)::real[]::vector)::halfvec
            FROM made m JOIN centres c ON c.g = m.i % 100;
        UPDATE collections SET vector_count = vector_count + {count} WHERE uuid = :'v1';
        COMMIT;""", collection)


@pytest.fixture(scope="module")
def small(world, owner):
    return filled(world, owner)


@pytest.fixture(scope="module")
def large(world, owner):
    collection = filled(world, owner, 6)
    grow(world, collection)
    return collection


def path(collection, projection="", rest=""):
    return f"/api/v2/collections/{collection}/projections" + (f"/{projection}" if projection else "") + (f"/{rest}" if rest else "")


def build(user, collection, **wish):
    made = user.must("POST", path(collection), wish, status=202)
    user.wait_over(made["operation_id"])
    return user.must("GET", path(collection, made["id"]))


def arrays(user, collection, projection, **more):
    answer = user.ask("GET", path(collection, projection, "arrays"), **more)
    assert answer.status == 200, answer
    n = int(answer.headers["X-Point-Count"])
    assert len(answer.raw) == n * 20 == int(answer.headers["Content-Length"]) and answer.headers["Content-Type"] == "application/octet-stream"
    return (struct.unpack_from(f"<{n}f", answer.raw), struct.unpack_from(f"<{n}f", answer.raw, 4 * n), struct.unpack_from(f"<{n}I", answer.raw, 8 * n),
            struct.unpack_from(f"<{n}q", answer.raw, 12 * n))


def raw_arrays(user, collection, projection):
    return user.ask("GET", path(collection, projection, "arrays")).raw


def events_of(stack, operation):
    out = json.loads(stack.redis_cli("--json", "XRANGE", f"{stack.name}:operation-progress:{operation}", "-", "+") or "[]")
    return [json.loads(fields[fields.index("message") + 1]) for _, fields in out]


@pytest.mark.parametrize("method", METHODS)
def test_a_projection_is_built_told_and_read_in_binary(world, owner, small, method):
    made = owner.must("POST", path(small), {"method": method, "color_by": "type"}, status=202)
    assert made["status"] == "pending" and made["idempotent_reuse"] is False and made["method"] == made["reducer"] == method and made["dimensions"] == 2
    assert owner.operation(made["operation_id"])["config"]["projection_id"] == made["id"]
    over = owner.wait_over(made["operation_id"])
    assert over["progress"] == 100 and over["type"] == "projection_build"
    shown = owner.must("GET", path(small, made["id"]))
    assert shown["status"] == "completed" and shown["progress"] == 100 and shown["point_count"] == 30 and shown["vector_dimensions"] == 384 and not shown["is_stale"]
    assert 0.5 < shown["figures"]["trustworthiness"] <= 1 and shown["figures"]["total_count"] == 30 and shown["figures"]["is_sample"] is False
    assert {entry["text"]: entry["count"] for entry in shown["legend"]} == {"text/plain": 20, "text/markdown": 10}
    xs, ys, labels, ids = arrays(owner, small, made["id"])
    assert all(abs(v) < 1e4 for v in xs + ys) and len(set(zip(xs, ys))) > 20
    assert [labels.count(entry["label"]) for entry in shown["legend"]] == [20, 10] and list(ids) == sorted(set(ids))
    visible = world.sql("SELECT k.id FROM chunks k JOIN collections c ON c.id = k.collection_id WHERE c.uuid = :'v1' ORDER BY k.id", small)
    assert [str(i) for i in ids] == [row[0] for row in visible]
    wait_for("the last event", lambda: any(e["type"] in LAST for e in events_of(world, made["operation_id"])))
    kinds = [e["type"] for e in events_of(world, made["operation_id"])]
    assert kinds[0] == "operation_started" and kinds[-2:] == ["projection_build_completed", "operation_completed"] and "processing_progress" in kinds


def test_what_lies_together_is_shown_together(owner, small):
    shown = build(owner, small, method="umap", color_by="document", seed=3)
    assert len(shown["legend"]) == 30 and all(entry["count"] == 1 for entry in shown["legend"])
    xs, ys, labels, _ = arrays(owner, small, shown["id"])
    text = {entry["label"]: entry["text"] for entry in shown["legend"]}
    topic = [int(text[label][:2]) % len(docs.STORIES) for label in labels]
    right = 0
    for i in range(30):
        nearest = min((j for j in range(30) if j != i), key=lambda j: (xs[i] - xs[j]) ** 2 + (ys[i] - ys[j]) ** 2)
        right += topic[nearest] == topic[i]
    assert right >= 27, right


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(owner, large, method):
    first = build(owner, large, method=method, sample_size=700, seed=11, color_by="none")
    before = raw_arrays(owner, large, first["id"])
    assert owner.ask("DELETE", path(large, first["id"])).status == 204
    again = build(owner, large, method=method, sample_size=700, seed=11, color_by="none")
    assert again["id"] != first["id"] and raw_arrays(owner, large, again["id"]) == before and len(before) == 700 * 20
    assert again["figures"]["is_sample"] is True and again["legend"] == [{"label": 0, "text": "all", "count": 700}]
    other = build(owner, large, method=method, sample_size=700, seed=12, color_by="none")
    assert raw_arrays(owner, large, other["id"]) != before


def test_the_same_wish_is_answered_with_what_is_there_until_it_is_stale(world, owner):
    collection = filled(world, owner, 8)
    first = build(owner, collection, method="pca")
    again = owner.must("POST", path(collection), {"method": "pca"}, status=200)
    assert again["id"] == first["id"] and again["idempotent_reuse"] is True and again["status"] == "completed"
    folder = os.path.join(world.roots, secrets.token_hex(4))
    docs.write(folder, "more.txt", "A letter that came later, about the tides and the moon.")
    owner.index(collection, folder)
    assert owner.must("GET", path(collection, first["id"]))["is_stale"] is True
    assert owner.must("GET", path(collection))["projections"][0]["is_stale"] is True
    new = owner.must("POST", path(collection), {"method": "pca"}, status=202)
    assert new["id"] != first["id"]
    owner.wait_over(new["operation_id"])
    listed = owner.must("GET", path(collection))
    assert [p["id"] for p in listed["projections"]] == [new["id"], first["id"]] and listed["total"] == 2
    assert "legend" not in listed["projections"][0]


def test_arrays_are_asked_for_again_only_when_they_are_others(owner, small):
    shown = build(owner, small, method="pca", seed=5)
    tag = owner.ask("GET", path(small, shown["id"], "arrays")).headers["ETag"]
    answer = owner.ask("GET", path(small, shown["id"], "arrays"), headers={"If-None-Match": tag})
    assert answer.status == 304 and answer.raw == b""
    assert owner.ask("GET", path(small, shown["id"], "arrays"), headers={"If-None-Match": '"other"'}).status == 200


def test_points_tell_what_they_are(owner, small):
    shown = build(owner, small, method="pca", seed=6)
    _, _, _, ids = arrays(owner, small, shown["id"])
    answer = owner.must("POST", path(small, shown["id"], "select"), {"ids": [ids[3], ids[1], 999999999]})
    assert [item["chunk_id"] for item in answer["items"]] == [ids[1], ids[3]] and answer["missing_ids"] == [999999999]
    assert all(item["file_name"] and item["content"] and item["document_id"] and item["chunk_index"] == 0 for item in answer["items"])
    for wrong in ({"ids": []}, {"ids": [1.5]}, {"ids": ["a"]}, {"ids": [-1]}, {"ids": list(range(1, 202))}, {}):
        assert owner.ask("POST", path(small, shown["id"], "select"), wrong).status == 422, wrong


@pytest.mark.parametrize("wish,field", [
    ({"method": "lda"}, "method"), ({"reducer": "pacmap"}, "method"), ({"dimensions": 3}, "dimensions"), ({"sample_size": 0}, "sample_size"),
    ({"sample_size": 200001}, "sample_size"), ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed"), ({"color_by": "mood"}, "color_by"), ({"metric": "hamming"}, "metric"),
    ({"n_neighbors": 1}, "n_neighbors"), ({"n_neighbors": 201}, "n_neighbors"), ({"min_dist": -0.1}, "min_dist"), ({"perplexity": 1}, "perplexity"), ({"spread": 0}, "spread"),
    ({"perplexity": "many"}, "perplexity")])
def test_a_wish_that_cannot_be_is_refused_by_name(owner, small, wish, field):
    before = owner.must("GET", path(small))["total"]
    answer = owner.ask("POST", path(small), wish)
    assert answer.status == 422 and answer.json["detail"][0]["loc"] == ["body", field], answer
    assert owner.must("GET", path(small))["total"] == before


def test_who_may_read_a_collection_may_read_projections_and_only_its_owner_builds_and_removes(world, owner):
    private, public = filled(world, owner, 4), filled(world, owner, 4, is_public=True)
    other = Client.registered(world.apis[0].url)
    for collection, may_read in ((private, False), (public, True)):
        shown = build(owner, collection, method="pca")
        reading = (("GET", path(collection), None), ("GET", path(collection, shown["id"]), None), ("GET", path(collection, shown["id"], "arrays"), None),
                   ("POST", path(collection, shown["id"], "select"), {"ids": [1]}))
        for method, where, body in reading:
            assert other.ask(method, where, body).status == (200 if may_read else 403), (method, where)
            assert Client(owner.url).ask(method, where, body).status == 401
        assert other.ask("POST", path(collection), {"method": "pca"}).status == 403
        assert other.ask("DELETE", path(collection, shown["id"])).status == 403
        assert owner.must("GET", path(collection))["total"] == 1
    mine = owner.must("GET", path(private))["projections"][0]["id"]
    assert owner.ask("GET", path(public, mine)).status == 404 and owner.ask("GET", path(public, mine, "arrays")).status == 404
    assert owner.ask("GET", path(public, secrets.token_hex(3))).status == 404


def test_a_collection_without_vectors_is_refused_with_a_reason(owner):
    answer = owner.ask("POST", path(owner.collection()["id"]), {"method": "umap"})
    assert answer.status == 400 and "no vectors yet" in answer.json["detail"], answer


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_very_few_points_are_projected_as_well(world, owner, count):
    collection = filled(world, owner, count)
    for method in METHODS:
        shown = build(owner, collection, method=method)
        xs, ys, _, ids = arrays(owner, collection, shown["id"])
        assert len(ids) == count and all(v == v and abs(v) < 1e4 for v in xs + ys)


def test_building_does_not_keep_other_work_from_the_collection(world, owner, large):
    made = owner.must("POST", path(large), {"method": "tsne", "seed": 77}, status=202)
    wait_for("it to run", lambda: owner.operation(made["operation_id"])["status"] == "processing")
    folder = os.path.join(world.roots, secrets.token_hex(4))
    docs.write(folder, "meanwhile.txt", "Written while others were drawing maps.")
    owner.index(large, folder)
    assert owner.show(large)["status"] == "ready"
    assert owner.ask("DELETE", path(large, made["id"])).status == 204


def test_a_running_build_is_cancelled_soon_and_leaves_nothing(world, owner, large):
    watch = owner.watch("/ws/operations")
    made = owner.must("POST", path(large), {"method": "tsne", "seed": 78}, status=202)
    watch.wait("the layout's progress", lambda e: e.get("operation_id") == made["operation_id"] and e["data"].get("stage") == "laying out")
    assert owner.ask("GET", path(large, made["id"], "arrays")).status == 409
    started = time.time()
    owner.must("DELETE", "/api/v2/operations/" + made["operation_id"])
    wait_for("the task to stop", lambda: [e for _, e in world.log_lines() if e.get("operation") == made["operation_id"] and e.get("event") == "task_stopped"])
    assert time.time() - started < 3
    shown = owner.must("GET", path(large, made["id"]))
    assert shown["status"] == "cancelled" and shown["point_count"] is None
    assert owner.ask("GET", path(large, made["id"], "arrays")).status == 409
    assert world.sql_value("SELECT count(*) FROM projection_parts pp JOIN projections p ON p.id = pp.projection_id WHERE p.uuid = :'v1'", made["id"]) == "0"
    # A cancelled one is not taken for what is wished for again.
    again = owner.must("POST", path(large), {"method": "tsne", "seed": 78}, status=202)
    assert again["id"] != made["id"]
    assert owner.ask("DELETE", path(large, again["id"])).status == 204
    owner.wait_over(again["operation_id"], "cancelled")
    assert owner.ask("GET", path(large, again["id"])).status == 404


def test_arrays_that_a_cancel_overtook_are_removed(world, owner, small):
    shown = build(owner, small, method="pca", seed=9)
    world.sql("INSERT INTO operations (uuid, user_id, type, mutates, queue, config, status, completed_at, announced_at) SELECT gen_random_uuid(), user_id, type, false, queue, config,"
              " 'cancelled', now(), now() FROM operations WHERE uuid = :'v1'", shown["operation_id"])
    world.sql("UPDATE projections SET operation_uuid = (SELECT uuid FROM operations WHERE status = 'cancelled' ORDER BY id DESC LIMIT 1) WHERE uuid = :'v1'", shown["id"])
    assert owner.ask("GET", path(small, shown["id"], "arrays")).status == 409
    helper = world.add("worker")  # a worker looks for leftovers when it starts, and then now and then
    wait_for("its arrays to be gone", lambda: world.sql_value(
        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM projection_parts pp JOIN projections p ON p.id = pp.projection_id WHERE p.uuid = :'v1')", shown["id"]), seconds=60)
    assert helper.stop() == 0


def test_more_memory_than_allowed_is_refused_before_anything_is_read(world, owner, make_stack):
    stack = make_stack(apis=1, workers=1, PROJECTION_MAX_MB=4)
    me = Client.registered(stack.apis[0].url)
    collection = filled(stack, me, 3)
    grow(stack, collection, 1500)
    made = me.must("POST", path(collection), {"method": "tsne"}, status=202)
    failed = me.wait_over(made["operation_id"], "failed")
    assert "PROJECTION_MAX_MB" in failed["error_message"] and "sample_size" in failed["error_message"] and failed["attempt"] == 1
    shown = me.must("GET", path(collection, made["id"]))
    assert shown["status"] == "failed" and "sample_size" in shown["error_message"]
    build(me, collection, method="tsne", sample_size=100)


@pytest.mark.parametrize("point", ["projection_read", "projection_computed", "projection_written", "after_projection_commit", "before_ack"])
def test_a_build_that_is_killed_anywhere_is_finished_by_the_next_attempt(killed, point):
    stack, me, collection, expected = killed
    with open(os.path.join(stack.dir, "faults-dir", "faults"), "w") as file:
        file.write(f"{point}:kill*1")
    for name in os.listdir(os.path.join(stack.dir, "faults-dir")):
        if name != "faults":
            os.unlink(os.path.join(stack.dir, "faults-dir", name))
    made = me.must("POST", path(collection), {"method": "umap", "seed": 1, "n_neighbors": 5}, status=202)
    over = me.wait_over(made["operation_id"])
    assert over["attempt"] == 2, over
    assert raw_arrays(me, collection, made["id"]) == expected
    assert stack.sql_value("SELECT count(*) FROM projection_parts") == "1"
    assert me.ask("DELETE", path(collection, made["id"])).status == 204
    assert stack.sql_value("SELECT count(*) FROM projection_parts") == "0"


@pytest.fixture(scope="module")
def killed():
    import tempfile

    from support.stack import Stack
    folder = tempfile.mkdtemp(prefix="opstream-faults-")
    stack = Stack(apis=1, workers=1, has_faults=True, FAULT_DIR=folder)
    os.symlink(folder, os.path.join(stack.dir, "faults-dir"))
    me = Client.registered(stack.apis[0].url)
    collection = filled(stack, me, 20)
    shown = build(me, collection, method="umap", seed=1, n_neighbors=5)
    expected = raw_arrays(me, collection, shown["id"])
    assert me.ask("DELETE", path(collection, shown["id"])).status == 204
    yield stack, me, collection, expected
    stack.close()


def test_deleting_a_collection_removes_its_projections_and_stops_what_builds_them(world, owner):
    collection = filled(world, owner, 5)
    grow(world, collection, 3000)
    shown = build(owner, collection, method="pca", sample_size=100)
    running = owner.must("POST", path(collection), {"method": "tsne"}, status=202)
    wait_for("it to run", lambda: owner.operation(running["operation_id"])["status"] == "processing")
    operation = owner.ask("DELETE", "/api/v2/collections/" + collection).headers["X-Operation-ID"]
    assert owner.ask("GET", path(collection, shown["id"])).status == 404
    owner.wait_over(operation)
    wait_for("the build to end", lambda: owner.operation(running["operation_id"])["status"] in ("failed", "completed", "cancelled"))
    assert owner.operation(running["operation_id"])["status"] in ("failed", "cancelled")
    assert world.sql_value("SELECT count(*) FROM projections WHERE uuid IN (:'v1', :'v2')", shown["id"], running["id"]) == "0"


def test_a_request_that_is_sent_twice_with_its_key_is_answered_the_same(owner, small):
    wish, key = {"method": "pca", "seed": 21}, {"Idempotency-Key": secrets.token_hex(8)}
    first = owner.ask("POST", path(small), wish, headers=key)
    again = owner.ask("POST", path(small), wish, headers=key)
    assert first.status == again.status == 202 and first.json == again.json
    assert owner.ask("POST", path(small), {"method": "pca", "seed": 22}, headers=key).status == 422
    owner.wait_over(first.json["operation_id"])
