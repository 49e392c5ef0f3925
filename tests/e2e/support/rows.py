"""What a worker would have written, put into the database by hand, for tests of the API alone; and a worker that answers embedding requests."""
import http.server
import json
import os
import threading
import time

DIM = 4


def finish(stack, operation_id, status="completed", message=None):
    """The operation ends, its collection is ready, as a worker does it in one transaction."""
    stack.sql("""BEGIN; UPDATE operations SET status = 'processing', started_at = now(), attempt = attempt + 1, task_id = gen_random_uuid(), worker_id = 'w'
                 WHERE uuid = :'v1' AND status = 'pending';
                 UPDATE operations SET status = :'v2', completed_at = now(), error_message = nullif(:'v3', ''),
                     percent = CASE WHEN :'v2' = 'completed' THEN 100 ELSE percent END WHERE uuid = :'v1';
                 UPDATE collections SET status = 'ready' WHERE deleted_at IS NULL
                     AND id = (SELECT collection_id FROM operations WHERE uuid = :'v1'); COMMIT""",
              operation_id, status, message or "")


def claim(stack, operation_id, percent=0):
    stack.sql("""UPDATE operations SET status = 'processing', started_at = now() - interval '10 seconds', attempt = attempt + 1,
                 task_id = gen_random_uuid(), worker_id = 'w', percent = :v2 WHERE uuid = :'v1'""", operation_id, percent)


def ready_collection(stack, client, **more):
    made = client.must("POST", "/api/v2/collections", {"name": "c-" + os.urandom(6).hex(), **more}, status=201)
    finish(stack, made["initial_operation_id"])
    return client.show(made["id"])


def add_document(stack, collection_id, path, status="completed", category=None, mime="text/plain", size=5):
    """Its UUID."""
    return stack.sql_value("""INSERT INTO documents (collection_id, path, file_name, file_path, file_size, mime_type, content_hash, status, error_category,
                                  live_version, next_version, chunk_count)
                              SELECT id, convert_to(:'v2', 'UTF8'), regexp_replace(:'v2', '.*/', ''), :'v2', :v6, :'v5', md5(:'v2'), :'v3', nullif(:'v4', ''),
                                  CASE WHEN :'v3' = 'completed' THEN 1 ELSE 0 END, 2, 1 FROM collections WHERE uuid = :'v1' RETURNING uuid""",
                           collection_id, path, status, category or "", mime, size)


def add_vectors(stack, collection_id, rows, model="all-MiniLM-L6-v2"):
    """rows: (document uuid, text, vector). One generation, exact search."""
    number = stack.sql_value("""INSERT INTO generations (collection_id, model, dim, quantization, state, activated_at)
                                SELECT id, :'v2', :v3, 'float16', 'active', now() FROM collections WHERE uuid = :'v1' RETURNING id""", collection_id, model, DIM)
    stack.sql(f"""CREATE TABLE vec.g{number} (chunk_id bigint PRIMARY KEY, document_id bigint NOT NULL, version integer NOT NULL, embedding halfvec({DIM}) NOT NULL);
                  UPDATE collections SET active_generation = {number}, vector_count = :v2 WHERE uuid = :'v1'""", collection_id, len(rows))
    for i, (document, text, vector) in enumerate(rows):
        stack.sql(f"""WITH d AS (SELECT id, collection_id FROM documents WHERE uuid = :'v1'),
                          k AS (INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte)
                                SELECT d.collection_id, d.id, 1, :v4, :'v2', 3, 0, 9 FROM d RETURNING id, document_id)
                      INSERT INTO vec.g{number} SELECT k.id, k.document_id, 1, (:'v3')::halfvec FROM k""",
                  document, text, json.dumps(vector), i)
    return number


class FakeEmbedder:
    """Answers /internal/embed with a vector that is given to it; counts requests and connections."""

    def __init__(self, vector=(1, 0, 0, 0)):
        self.vector, self.status, self.delay, self.raw = list(vector), 200, 0, None
        self.requests, self.connections, self.keys = [], 0, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                super().setup()

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.keys.append(self.headers.get("X-Internal-Api-Key"))
                time.sleep(outer.delay)
                answer = outer.raw if outer.raw is not None else json.dumps(
                    {"model": body["model"], "dim": len(outer.vector), "vectors": [outer.vector], "tokens": 3}).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *unused):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def register(self, stack, worker_id, models="all-MiniLM-L6-v2", seconds=600):
        stack.sql("""INSERT INTO workers (id, host, pid, url, models, expires_at) VALUES (:'v1', 'here', 1, :'v2', string_to_array(:'v3', ','),
                     now() + make_interval(secs => :v4))""", worker_id, self.url, models, seconds)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
