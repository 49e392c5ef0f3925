"""The React hooks and the progress of the JavaScript client, in a real Chromium with the React of Debian's packages."""
import json
import os

import pytest
from support.js import ApiGate, Watching
from support.stack import wait_for
from test_js_client import FAST, browser, pages, publish, stack, user, operation  # noqa: F401 (fixtures)
from test_websockets import Operation

REACT = "/usr/share/nodejs/"
PAGE = """<!doctype html><meta charset=utf-8><title>hooks</title><link rel=icon href=data:,>
<script type=importmap>{"imports": {"react": "data:text/javascript,export const { useEffect, useState } = React;"}}</script>
<script src=/react.js></script><script src=/react-dom.js></script><div id=root></div>
<script type=module>
import { OpstreamClient } from "/clients/opstream.js";
import { useOperationProgress, useOperations } from "/clients/react.js";
const e = React.createElement;
window.renders = [];
window.clientOf = (baseUrl, token, settings) => new OpstreamClient({ baseUrl, getToken: () => token, ...settings });
function One({ id, client }) {
    const w = useOperationProgress(id, client);
    renders.push({ ...w, id, events: w.events.map((x) => x.id), connectionError: w.connectionError?.message ?? null });
    return e("p", { id: "one" }, `${w.status} ${w.processed}/${w.total} ${w.connection}`);
}
function All({ client }) {
    const w = useOperations(client);
    renders.push(w);
    return e("ul", { id: "all" }, Object.values(w.operations).map((o) => e("li", { key: o.operationId }, `${o.operationId} ${o.processed}`)));
}
window.show = (kind, props, isStrict) => {
    window.shown ??= ReactDOM.createRoot(document.getElementById("root"));
    const element = e(kind === "all" ? All : One, props);
    window.shown.render(isStrict ? e(React.StrictMode, null, element) : element);
};
window.hide = () => { window.shown.unmount(); window.shown = undefined; };
</script>"""


@pytest.fixture
def page(browser, pages):  # noqa: F811
    pages.more.update({"/hooks": PAGE, "/react.js": REACT + "react/umd/react.development.js", "/react-dom.js": REACT + "react-dom/umd/react-dom.development.js"})
    assert os.path.exists(pages.more["/react-dom.js"]), "node-react-dom is missing: make setup"
    made = browser.page(pages.url + "/hooks")
    made.wait_for("window.show")
    yield made
    assert made.errors == []
    made.close()


@pytest.fixture
def gate(stack):  # noqa: F811
    made = ApiGate(stack.apis[0])
    yield made
    made.shut()


def show(page, gate, user, operation, kind="one", is_strict=False):  # noqa: F811
    page.evaluate(f"window.client ??= clientOf({json.dumps(gate.url)}, {json.dumps(user.token)}, {{ {FAST} }})")
    page.evaluate(f"show({json.dumps(kind)}, {{ id: {json.dumps(operation and operation.id)}, client }}, {json.dumps(is_strict)})")


def last(page):
    return page.evaluate("renders.at(-1)")


def document(publish, operation, n, total=100):  # noqa: F811
    return publish(operation, "document_processed", progress=100 * n / total,
                   data={"processed": n, "failed": 0, "total": total, "current_file": f"{n}.txt", "progress_percent": 100 * n / total})


@pytest.mark.parametrize("is_strict", [False, True])
def test_the_hook_shows_an_operation_from_its_state_to_its_end(page, gate, user, operation, publish, is_strict):  # noqa: F811
    ids = [document(publish, operation, 1)]
    show(page, gate, user, operation, is_strict=is_strict)
    page.wait_for("document.querySelector('#one').textContent === 'processing 1/100 live'")
    assert len(page.sockets) == 1, "StrictMode's second effect leaves no second socket"
    gate.cut()
    ids.append(document(publish, operation, 2))
    page.wait_for("document.querySelector('#one').textContent === 'processing 2/100 live'")
    shown = last(page)
    assert (shown["progress"], shown["currentFile"], shown["stage"], shown["error"]) == (2, "2.txt", "processing", None)
    ids.append(publish(operation, "operation_failed", status="failed", data={"status": "failed", "error_message": "the disk is full", "processed": 2, "failed": 1, "total": 100}))
    page.wait_for("document.querySelector('#one').textContent === 'failed 2/100 closed'")
    shown = last(page)
    assert (shown["error"], shown["failed"], shown["hasEnded"], shown["stage"], shown["etaSeconds"]) == ("the disk is full", 1, True, "failed", 0)
    assert [i for i in shown["events"] if i] == ids, "each once"
    wait_for("the socket to be closed", lambda: not page.sockets)


def test_unmounting_closes_and_another_operation_starts_from_nothing(page, stack, gate, user, operation, publish):  # noqa: F811
    other = Operation(stack, user)
    document(publish, operation, 7)
    show(page, gate, user, operation)
    page.wait_for("document.querySelector('#one').textContent === 'processing 7/100 live'")
    show(page, gate, user, other)
    page.wait_for("document.querySelector('#one').textContent === 'processing null/null live'")
    wait_for("one socket to be left", lambda: [url.split("/")[-1].split("?")[0] for url in page.sockets.values()] == [other.id])
    assert page.evaluate(f"renders.filter((r) => r.id === '{other.id}' && r.processed !== null)") == [], "nothing of the other one is shown for a moment"
    count = page.evaluate("renders.length")
    page.evaluate("hide()")
    wait_for("the socket to be closed", lambda: not page.sockets)
    document(publish, other, 1)
    show(page, gate, user, None)
    page.wait_for("document.querySelector('#one').textContent === 'null null/null connecting'")
    assert page.sockets == {} and page.evaluate("renders.length") == count + 1, "without an id nothing is watched"


def test_a_refusal_is_shown_as_the_error(page, stack, gate, user, operation):  # noqa: F811
    stack.sql("DELETE FROM operations WHERE uuid = :'v1'", operation.id)
    show(page, gate, user, operation)
    page.wait_for("renders.at(-1).connection === 'closed' && renders.at(-1).error")
    assert "not found" in last(page)["error"] and last(page)["status"] is None


def test_a_storm_of_events_is_drawn_a_few_times_a_second(page, gate, user, operation, publish):  # noqa: F811
    for n in range(600):
        document(publish, operation, n, 600)
    show(page, gate, user, operation)
    page.wait_for("renders.at(-1).processed === 599")
    assert len(last(page)["events"]) == 100
    assert page.evaluate("renders.length") < 60


def test_the_hook_of_all_operations_shows_each_by_its_id(page, stack, gate, user, operation, publish):  # noqa: F811
    other = Operation(stack, user)
    show(page, gate, user, None, kind="all")
    page.wait_for("renders.at(-1).connection === 'live'")
    document(publish, operation, 1)
    document(publish, other, 5)
    document(publish, operation, 2)
    page.wait_for("renders.at(-1).lastEvent?.data.processed === 2")
    assert page.evaluate("[...document.querySelectorAll('#all li')].map((li) => li.textContent)") == [other.id + " 5", operation.id + " 2"]


# --- progress.js alone

def progress(page, *events):
    return page.run("""const { initialProgress, progressAfter } = await import("/clients/progress.js");
        const all = [initialProgress()];
        for (const event of """ + json.dumps(events) + """) all.push(progressAfter(all.at(-1), event));
        return all.slice(1);""")


def at(seconds, kind="document_processed", status="processing", **data):
    return {"id": f"e-{int(seconds * 1000)}-0", "type": kind, "status": status, "timestamp": f"2026-11-22T05:{int(seconds) // 60:02}:{seconds % 60:09.6f}Z", "data": data}


def test_rate_and_time_left_follow_the_events_times(page):
    steady = progress(page, *[at(n / 2, processed=5 * n, total=1000) for n in range(41)])
    assert steady[0]["rate"] is None and steady[0]["etaSeconds"] is None, "one event tells no rate"
    assert all(abs(p["rate"] - 10) < 1e-6 for p in steady[1:])
    assert abs(steady[40]["etaSeconds"] - 80) < 1e-6
    slower = progress(page, *[at(n, processed=10 * n, total=1000) for n in range(21)], *[at(20 + n, processed=200 + n, total=1000) for n in range(1, 31)])
    rates = [p["rate"] for p in slower[20:]]
    assert rates == sorted(rates, reverse=True) and 1 < rates[-1] < 1.6, "it nears the new rate smoothly"


def test_events_of_one_instant_and_counts_that_go_back_tell_no_rate(page):
    burst = progress(page, *[at(1 + n / 1e5, processed=n, total=100) for n in range(50)])
    assert burst[-1]["rate"] is None
    again = progress(page, at(1, processed=0, total=100), at(2, processed=50, total=100), at(3, processed=10, total=100), at(4, processed=12, total=100))
    assert [p["rate"] for p in again] == [None, 50, None, 2], "another attempt counts anew"


def test_stages_and_states_of_a_whole_operation(page):
    shown = progress(page, {"type": "current_state", "status": "pending", "timestamp": "2026-11-22T05:00:00Z", "data": {"progress": 0}}, at(1, "operation_started", attempt=1),
                     at(2, "scanning_documents", stage="scanning", files_found=3), at(3, "scanning_completed", documents_to_process=3), at(4, processed=1, failed=0, total=3),
                     at(5, "append_completed", documents_processed=3), at(6, "operation_completed", "completed", processed=3, failed=0, total=3, result={"chunks": 9}))
    assert [p["stage"] for p in shown] == ["pending", "starting", "scanning", "processing", "processing", "finishing", "completed"]
    assert shown[3]["total"] == 3 and shown[-1]["progress"] == 100 and shown[-1]["result"] == {"chunks": 9} and shown[-1]["hasEnded"]


def test_the_history_behind_a_final_state_does_not_take_it_back(page):
    shown = progress(page, {"type": "current_state", "status": "failed", "timestamp": "2026-11-22T05:00:00Z", "data": {"error_message": "no"}},
                     at(1, "operation_started"), at(2, processed=1, total=2), {"type": "unknown", "timestamp": "never", "data": None})
    assert {(p["status"], p["error"], p["stage"]) for p in shown} == {("failed", "no", "failed")}
    assert shown[-1]["processed"] == 1
