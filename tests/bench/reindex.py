"""Searches while a collection is re-indexed, against the same searches before and after, and how many chunks a reindex embeds. Run by
scripts/with-services.sh python3 tests/bench/reindex.py"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import test_reindex as parts  # noqa: E402
from support.client import Client  # noqa: E402

DOCUMENTS, SEARCHES = 40, 200


def latencies(user, collection, go_on):
    took = []
    while go_on(len(took)):
        start = time.perf_counter()
        answer = user.ask("POST", "/api/v2/search", {"query": "bees dance to tell of flowers", "collection_uuids": [collection], "k": 5})
        assert answer.status == 200, answer
        took.append((time.perf_counter() - start) * 1000)
    took.sort()
    return took


def show(name, took, idle=None):
    if not took:
        return
    median, late = took[len(took) // 2], took[int(len(took) * 0.95)]
    ratio = f"  ratio of medians {median / idle[len(idle) // 2]:.2f}" if idle else ""
    print(f"{name:40} {len(took):5} searches  median {median:7.1f} ms  95% {late:7.1f} ms  longest {took[-1]:7.1f} ms{ratio}", flush=True)


def main():
    stack = parts.make(apis=1, workers=1)
    try:
        user = Client.registered(stack.apis[0].url)
        collection, _ = parts.fill(stack, user, count=DOCUMENTS)
        latencies(user, collection, lambda n: n < 20)
        idle = latencies(user, collection, lambda n: n < SEARCHES)
        show("idle", idle)
        for name, body in (("other chunks", {"chunk_size": 150, "chunk_overlap": 0}), ("same settings", None), ("another model", {"embedding_model": parts.OTHER})):
            operation = user.must("POST", f"/api/v2/collections/{collection}/reindex", body, status=202)
            looked = [0.0, False]

            def is_running(_, operation=operation, looked=looked):
                if time.monotonic() - looked[0] > 0.2:
                    looked[:] = [time.monotonic(), user.operation(operation["id"])["status"] in ("pending", "processing")]
                return looked[1]
            took = latencies(user, collection, is_running)
            show(f"during a reindex: {name}", took, idle)
            told = parts.result(stack, operation)
            print(f"    embedded {told['chunks_embedded']}, reused {told['chunks_reused']}, in {sum(took) / 1000:.1f} s of searches one after another", flush=True)
        show("idle again", latencies(user, collection, lambda n: n < SEARCHES), idle)
    finally:
        parts.end(stack)


if __name__ == "__main__":
    main()
