"""The page at / in a real browser: what a person sees and does, while sockets are cut, servers restart and sessions end."""
import json
import os
import time
from types import SimpleNamespace

import pytest
from support import documents as docs
from support import rows
from support.browser import Browser
from support.client import Client
from support.js import ApiGate, Pages, Polls
from support.stack import ROOT, Stack, wait_for
from support.web import PASSWORD, Sites
from test_websockets import Publisher


HOST = "opstream.test"  # a name that is no address; over plain HTTP its pages are no secure context


@pytest.fixture(scope="module")
def browser():
    with Browser(f"--host-resolver-rules=MAP {HOST} 127.0.0.1", "--no-proxy-server") as made:
        yield made


@pytest.fixture
def sites(browser):
    made = Sites(browser)
    yield made
    made.close()


@pytest.fixture(scope="module")
def stack():
    """With a worker that reads and embeds."""
    made = Stack(apis=1, workers=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def calm():
    """Without a worker: what happens to operations is what a test says."""
    made = Stack(apis=1, workers=0, DRAIN_SECONDS=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def publish(calm):
    made = Publisher(calm)
    yield made
    made.close()


@pytest.fixture
def gate(calm):
    made = ApiGate(calm.apis[0])
    yield made
    made.shut()


class Work:
    """An operation that a worker of the test's own carries out, event by event."""

    def __init__(self, stack, client, publish, total=8):
        self.stack, self.publish, self.total = stack, publish, total
        made = rows.ready_collection(stack, client)
        self.collection, self.name = made["id"], made["name"]
        path = os.path.join(stack.roots, os.urandom(6).hex())
        os.mkdir(path)
        self.id = client.add_source(self.collection, path)["id"]
        rows.claim(stack, self.id)
        self.user = SimpleNamespace(**client.must("GET", "/api/auth/me"))

    def tell(self, kind, status="processing", **data):
        return self.publish(self, kind, status=status, **{"data": data})

    def start(self):
        self.tell("operation_started", type="append", attempt=1, status="processing")
        return self

    def at(self, processed, failed=0, file="a.txt"):
        """So many documents are done with; ten vectors each."""
        percent = 100 * processed / self.total
        self.stack.sql("UPDATE operations SET percent = :v2 WHERE uuid = :'v1'", self.id, percent)
        good = processed - failed
        self.stack.sql("UPDATE collections SET document_count = :v2, vector_count = :v3 WHERE uuid = :'v1'", self.collection, good, 10 * good)
        self.publish(self, "document_processed", status="processing", progress=percent, data={
            "processed": processed, "failed": failed, "total": self.total, "current_file": file, "stats": {"document_count": good, "vector_count": 10 * good, "total_size_bytes": 100 * good}})
        return self

    def end(self, status="completed", **data):
        rows.finish(self.stack, self.id, status, data.get("error_message"))
        self.publish(self, "operation_" + status, status=status, data={"status": status, "operation_type": "append", **data})


def write_stories(folder, names=("lighthouse", "bakery", "volcano")):
    os.makedirs(folder, exist_ok=True)
    for name in names:
        docs.write(folder, name + ".txt", docs.STORIES[name])


# ---- the whole way


def test_a_folder_is_indexed_before_ones_eyes_and_answers_questions(sites, stack):
    folder = os.path.join(stack.roots, "stories")
    write_stories(folder)
    docs.write(folder, "broken.pdf", b"%PDF-1.4 broken")
    site = sites.open(stack.apis[0].url).sign_up().until_live()
    site.sees("No collections yet")
    second = sites.open(stack.apis[0].url).sign_in(site.name).until_live()
    second.sees("No collections yet")
    # Every number that is shown on the way is kept.
    site.page.evaluate("window.seen = new Set(); new MutationObserver(() => { for (const e of document.querySelectorAll('.collection .doing')) seen.add(e.innerText); })"
                       ".observe(document, {subtree: true, childList: true, characterData: true})")
    name = "Stories " + site.name
    site.press("New collection")
    site.fill("Name", name)
    site.fill("Source folder", folder)
    site.press("Look inside")
    site.sees("4 files", "dialog")
    site.press("Create")
    for each in (site, second):
        each.sees(name)
        each.page.wait_for("document.querySelector('.collection .chip')?.textContent === 'Ready'")
        each.page.wait_for("document.querySelector('.collection .facts dd')?.textContent === '3'")
    assert site.facts(".collection") == second.facts(".collection")
    assert site.facts(".collection")["Failed"] == "1"
    assert site.page.evaluate("seen.size") > 0
    site.sees("Completed", ".notice")
    site.go("Search")
    site.page.type("#query", "Which lamp helps sailors past the rocks at night?")
    site.page.press("Enter")
    site.page.wait_for("document.querySelector('.result')")
    assert site.texts(".result h3")[0] == "lighthouse.txt"
    assert {"lamp", "rocks"} <= set(site.texts(".result:first-child mark"))
    assert site.texts(".results .summary")[0].startswith("3 results in ")
    assert site.is_the_same and second.is_the_same


def test_what_failed_is_listed_with_its_reason_and_can_be_read_again(sites, stack):
    folder = os.path.join(stack.roots, "mended")
    write_stories(folder, ["chess"])
    docs.write(folder, "late.pdf", b"%PDF-1.4 broken")
    site = sites.open(stack.apis[0].url).sign_up().until_live()
    me = site.client()
    collection = me.collection()
    me.index(collection["id"], folder)
    site.press(collection["name"], ".collection h2 a")
    site.sees("late.pdf", ".failures")
    site.sees("damaged", ".failures .reason")
    docs.write(folder, "late.pdf", docs.pdf(docs.STORIES["violin"]))
    site.press("Retry late.pdf")
    site.sees("Retry failed documents", ".rows")
    site.does_not_see("Failed documents", "h2")
    wait_for("the counter to follow", lambda: site.facts(".big")["Documents"] == "2")
    assert site.facts(".big")["Failed"] == "0" and site.is_the_same


# ---- operations


def begun(sites, calm, publish, url=None, **more):
    """A user who looks at the operations, one of which runs."""
    site = sites.open(url or calm.apis[0].url, path="/operations")
    site.api = calm.apis[0].url
    site.sign_up().until_live()
    return site, Work(calm, site.client(), publish, **more).start()


def test_an_operation_is_shown_with_all_that_is_known_of_it(sites, calm, publish):
    site, work = begun(sites, calm, publish)
    site.sees(f"Add source {work.name}", ".operation.card h3")
    work.tell("scanning_documents", stage="scanning", files_found=1234)
    site.sees("Scanning files: 1,234 so far")
    work.at(3, failed=1, file="notes/winter.txt")
    site.sees("Reading and embedding")
    site.sees("37 %")
    site.sees("notes/winter.txt", ".current")
    facts = site.facts(".operation.card")
    assert facts["Processed"] == "3 of 8" and facts["Failed"] == "1" and facts["Elapsed"].startswith("0:")
    bar = site.page.evaluate("(({value, ariaLabel, ariaValueText}) => [value, ariaLabel, ariaValueText])(document.querySelector('.operation progress'))")
    assert bar == [37.5, f"Add source: {work.name}", "37 %, Reading and embedding"]
    time.sleep(0.3)  # less than a quarter of a second is too little to measure a rate
    work.at(6)
    wait_for("a rate", lambda: site.facts(".operation.card")["Rate"] != "–")
    assert site.facts(".operation.card")["Time left"] != "–"
    work.at(8).end(result={"documents_processed": 8, "documents_failed": 1, "chunks_created": 70})
    site.sees("8 documents, 1 failed, 70 chunks in", ".ended .outcome")
    site.sees("Nothing runs at the moment")
    assert len([text for text in site.texts(".operation") if "Add source" in text]) == 1
    site.press("Details")
    site.sees("Operation " + work.id, ".ended")


def test_a_failure_is_told_with_its_reason(sites, calm, publish):
    site, work = begun(sites, calm, publish)
    work.at(1)
    work.end("failed", error_message="the source cannot be reached: it is not there", error_class="transient")
    site.sees("The source cannot be reached: it is not there.", ".ended .outcome")
    site.sees("Failed: The source cannot be reached: it is not there.", ".notice.bad")
    site.press_at(".notice.bad button")
    site.page.wait_for("!document.querySelector('.notice.bad')")


def test_an_operation_is_cancelled_after_a_question(sites, calm, publish):
    site, work = begun(sites, calm, publish)
    work.at(2)
    site.sees("2 of 8")
    site.press(f"Cancel Add source: {work.name}")
    site.sees("What is finished stays: 2 documents.", "dialog")
    site.press("Let it run")
    site.page.wait_for("!document.querySelector('dialog')")
    assert site.client().operation(work.id)["status"] == "processing"
    site.press(f"Cancel Add source: {work.name}")
    site.press("Cancel operation")
    site.sees("Cancelled", ".ended .chip")
    assert site.client().operation(work.id)["status"] == "cancelled"
    work.end("cancelled")
    assert len([text for text in site.texts(".ended") if "Add source" in text]) == 1


def test_cut_sockets_and_a_restart_in_the_middle_lose_nothing_and_show_nothing_twice(sites, calm, publish, gate):
    site, work = begun(sites, calm, publish, url=gate.url)
    site.page.evaluate("window.shown = []; new MutationObserver(() => { const v = document.querySelector('.operation.card .facts dd')?.textContent;"
                       " if (v && v !== shown.at(-1)) shown.push(v); }).observe(document.querySelector('main'), {subtree: true, childList: true, characterData: true})")
    work.at(1)
    site.sees("1 of 8")
    gate.shut()
    site.page.wait_for("/^(Reconnecting in \\d+ s|Reconnecting…)$/.test(document.querySelector('.connection').innerText)")
    for n in (2, 3):
        work.at(n)
    gate.open()
    site.sees("3 of 8")
    site.until_live()
    calm.apis[0].kill()
    work.at(4)
    calm.apis[0].start()
    site.sees("4 of 8")
    site.until_live()
    gate.cut()
    work.at(8).end(result={"documents_processed": 8})
    site.sees("8 documents in", ".ended .outcome")
    site.until_live()
    assert len([text for text in site.texts(".operation") if "Add source" in text]) == 1
    assert len([text for text in site.texts(".notice") if "Add source" in text]) == 1
    counts = [int(text.split()[0]) for text in site.page.evaluate("shown") if " of " in text]
    assert counts == sorted(counts) and counts[0] <= 1 and counts[-1] >= 4, counts
    assert site.is_the_same


def test_where_sockets_do_not_get_through_the_page_polls_and_says_so(sites, calm, publish):
    gate = ApiGate(calm.apis[0], Polls(calm, ""))
    gate.blocks_upgrades = True
    site = sites.open(gate.url, path="/operations").sign_up()
    site.api = calm.apis[0].url
    site.sees("Polling", ".connection")
    work = Work(calm, site.client(), publish).start().at(3)
    site.sees("3 of 8")
    work.at(8).end(result={"documents_processed": 8})
    site.sees("8 documents in", ".ended .outcome")
    assert site.texts(".connection") == ["Polling"] and site.is_the_same
    site.press("Sign out")
    gate.shut()


def test_under_a_host_name_that_is_not_listed_the_page_polls(sites, calm, publish):
    site = sites.open(f"http://{HOST}:{calm.apis[0].port}", path="/operations").sign_up()
    site.api = calm.apis[0].url
    site.sees("Polling", ".connection")
    work = Work(calm, site.client(), publish).start().at(3)
    site.sees("3 of 8")
    work.at(8).end(result={"documents_processed": 8})
    site.sees("8 documents in", ".ended .outcome")
    assert site.texts(".connection") == ["Polling"] and site.is_the_same


def test_under_a_host_name_that_is_listed_the_page_has_its_socket(sites, calm, gate):
    gate.aim(calm.add("api", CORS_ORIGINS=f"http://{HOST}:{gate.port}"))
    site = sites.open(f"http://{HOST}:{gate.port}").sign_up().until_live()
    assert site.page.evaluate("navigator.locks") is None
    calm.processes[-1].stop()


def test_an_end_that_a_request_told_first_is_announced_once_when_its_event_comes(sites, calm, publish):
    site, work = begun(sites, calm, publish)
    work.at(2)
    site.sees("2 of 8")
    rows.finish(calm, work.id)
    site.look_again()
    site.sees("Done in", ".ended .outcome")
    work.tell("document_processed", processed=7, total=8)
    work.end(result={"documents_processed": 8})
    site.sees("8 documents in", ".ended .outcome")
    site.sees(f"Add source: {work.name}. Completed: 8 documents", ".notice")
    assert len([text for text in site.texts(".notice, .operation") if "Add source" in text]) == 2


def test_counters_are_the_same_in_every_tab(sites, calm, publish):
    site, work = begun(sites, calm, publish)
    other = sites.open(calm.apis[0].url).sign_in(site.name).until_live()
    site.go("Collections")
    for n in (1, 5):
        work.at(n)
        for each in (site, other):
            each.page.wait_for(f"document.querySelector('.collection .facts').innerText.replace(/\\s+/g, ' ').startsWith('Documents {n} Vectors {10 * n} ')")
            assert each.facts(".collection")["Size"] == f"{100 * n} B"
    assert site.facts(".collection") == other.facts(".collection")
    work.end(result={"documents_processed": 5})


# ---- collections


def test_a_collection_is_renamed_and_deleted_after_a_question_that_names_it(sites, calm):
    site = sites.open(calm.apis[0].url).sign_up().until_live()
    made = rows.ready_collection(calm, site.client(), description="As it was")
    name = "Renamed " + site.name
    site.press(f"Rename “{made['name']}”")
    site.fill("Name", "a/b")
    site.press("Save")
    site.page.wait_for("document.querySelector('dialog .wrong:not([hidden])')")
    site.fill("Name", name)
    site.press("Save")
    site.sees(name, ".collection")
    assert site.client().show(made["id"])["description"] == "As it was"
    site.press(name, ".collection h2 a")
    site.press(f"Delete “{name}”")
    site.sees(f"Delete “{name}”?", "dialog")
    site.page.press("Escape")
    site.page.wait_for("!document.querySelector('dialog')")
    assert site.page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Delete “{name}”", "the focus is where it was"
    site.press(f"Delete “{name}”")
    site.press("Delete collection")
    site.sees("No collections yet")
    assert site.page.evaluate("location.pathname") == "/collections"
    assert site.client().ask("GET", "/api/v2/collections/" + made["id"]).status == 404


def test_refusals_of_the_api_are_sentences_where_they_belong(sites, calm):
    site = sites.open(calm.apis[0].url).sign_up().until_live()
    taken = rows.ready_collection(calm, site.client())["name"]
    site.press("New collection")
    site.press("Create")
    site.sees("This is needed.", "dialog")
    site.fill("Name", taken)
    site.press("Create")
    site.page.wait_for("document.querySelector('dialog .wrong.whole:not([hidden])')?.textContent.endsWith('.')")
    assert taken in site.texts("dialog .wrong.whole")[0] and "{" not in site.texts("dialog .wrong.whole")[0]
    site.fill("Name", "n" + site.name)
    site.fill("Source folder", "/etc")
    site.press("Look inside")
    site.page.wait_for("document.querySelector('dialog .preview .hint').textContent.length > 12")
    site.press("Create")
    site.page.wait_for("document.querySelector('dialog .wrong.whole:not([hidden])')")
    site.press("Cancel")
    site.page.wait_for("!document.querySelector('dialog')")


def test_a_server_that_is_away_is_told_and_the_screen_comes_by_itself_when_it_is_back(sites, calm, gate):
    site = sites.open(gate.url).sign_up().until_live()
    gate.shut()
    site.press("New collection")
    site.fill("Name", "later " + site.name)
    site.press("Create")
    site.sees("The server cannot be reached.", "dialog")
    gate.open()
    site.press("Create")
    site.sees("later " + site.name, ".collection")
    site.until_live()
    assert site.is_the_same


# ---- sessions


def test_a_session_that_ends_leads_to_the_form_and_back_to_the_same_place(sites, calm):
    site = sites.open(calm.apis[0].url).sign_up().until_live()
    made = rows.ready_collection(calm, site.client())
    other = sites.open(calm.apis[0].url, path="/search?q=lamp").sign_in(site.name)
    site.press(made["name"], ".collection h2 a")
    site.sees(made["name"], "h1")
    calm.sql("DELETE FROM refresh_tokens")
    for each in (site, other):
        each.change_tokens(expires=0, renew=0)
        each.look_again()
    site.sees("Your session has ended. Sign in to go on where you were.")
    assert site.page.evaluate("location.pathname") == "/collections/" + made["id"]
    other.sees("Your session has ended.")
    for each in (site, other):
        each.sign_in(site.name).until_live()
    site.sees(made["name"], "h1")
    assert other.page.evaluate("location.pathname + location.search") == "/search?q=lamp"
    assert site.is_the_same and other.is_the_same


@pytest.mark.parametrize("before", ["", "delete Navigator.prototype.locks"], ids=["locks", "leases"])
def test_a_token_is_renewed_once_for_all_tabs_and_the_socket_stays(sites, calm, before):
    first = sites.open(calm.apis[0].url, before=before).sign_up().until_live()
    second = sites.open(calm.apis[0].url, beside=first, before=before).until_live()
    before = first.tokens
    sockets = dict(first.page.sockets)
    made = "SELECT count(*) FROM refresh_tokens"
    count = int(calm.sql_value(made))
    # Both have reason to renew at the same moment; a refresh token that is used twice would end the session.
    first.change_tokens(renew=0)
    for each in (first, second):
        each.page.evaluate("void dispatchEvent(new StorageEvent('storage', {key: 'opstream.session'}))")
    wait_for("another token", lambda: first.tokens["refresh"] != before["refresh"])
    assert int(calm.sql_value(made)) == count + 1
    assert dict(first.page.sockets) == sockets and len(sockets) == 1
    rows.ready_collection(calm, first.client(), name="after " + first.name)
    for each in (first, second):
        each.go("Operations")
        each.go("Collections")
        each.look_again()
        each.sees("after " + first.name)
    first.press("Sign out")
    second.page.wait_for("document.querySelector('form input[name=password]')")
    assert second.page.evaluate("localStorage.getItem('opstream.session')") is None
    assert second.page.evaluate("document.body.innerText.includes('after ')") is False, "nothing is left of whoever signed out"


# Time goes on only by pass(ms).
CLOCK = """
    delete Navigator.prototype.locks;
    const clock = { now: 1e12, timers: new Set() };
    const timer = (run, ms, every) => { const made = { run, at: clock.now + ms, every }; clock.timers.add(made); return made; };
    Date.now = () => clock.now;
    window.setTimeout = (run, ms) => timer(run, ms);
    window.setInterval = (run, ms) => timer(run, ms, ms);
    window.clearTimeout = window.clearInterval = (made) => clock.timers.delete(made);
    window.pass = async (ms) => {
        const end = clock.now + ms;
        for (;;) {
            for (let n = 0; n < 20; n++) await null; // what was settled goes on
            const next = [...clock.timers].sort((a, b) => a.at - b.at)[0];
            if (!next || next.at > end) break;
            clock.now = next.at;
            if (next.every) next.at += next.every;
            else clock.timers.delete(next);
            next.run();
        }
        clock.now = end;
    };
    const { alone } = await import("/web/lock.js");
    const held = {};
    const hold = (who) => void alone("it", () => new Promise((resolve, reject) => { held[who] = { resolve, reject }; })).catch(() => {});
"""


@pytest.fixture
def plain(browser):
    """An empty page, where the page's modules may be tried."""
    pages = Pages()
    pages.more["/web/lock.js"] = os.path.join(ROOT, "api/web/lock.js")
    made = browser.page(pages.url + "/", isolated=True)
    yield made
    made.close()
    pages.close()


def test_without_locks_one_tab_keeps_its_lease_however_long_it_takes(plain):
    assert plain.run(CLOCK + """
        localStorage.setItem("it", "mine");
        hold("first");
        await pass(1000);
        hold("second");
        await pass(600000);
        const before = Object.keys(held);
        held.first.reject(new Error("no server"));
        await pass(1000);
        held.second.resolve();
        await pass(1000);
        return [before, Object.keys(held), { ...localStorage }, clock.timers.size];""") == [["first"], ["first", "second"], {"it": "mine"}, 0]


def test_without_locks_a_lease_of_a_tab_that_is_no_more_ends_and_nobody_ends_the_lease_of_another(plain):
    assert plain.run(CLOCK + """
        hold("first");
        await pass(1000);
        const [key] = Object.keys(localStorage);
        const other = JSON.stringify({ me: "another tab", until: clock.now + 5000 });
        localStorage.setItem(key, other); // as when this tab was frozen for long
        await pass(4000);
        held.first.resolve();
        await pass(100);
        const kept = localStorage.getItem(key) === other;
        hold("second");
        await pass(500);
        const tooEarly = "second" in held;
        await pass(1000);
        dispatchEvent(new PageTransitionEvent("pagehide"));
        return [kept, tooEarly, "second" in held, { ...localStorage }];""") == [True, False, True, {}]


def test_another_user_of_the_same_browser_gets_a_socket_of_his_own(sites, calm, publish):
    site, work = begun(sites, calm, publish)
    work.at(2)
    site.sees("2 of 8")
    [before] = site.page.sockets
    stranger, theirs = begun(sites, calm, publish)
    # As it arrives from another tab: one change, from one session to the other.
    session = json.dumps(stranger.page.evaluate("localStorage.getItem('opstream.session')"))
    site.page.evaluate(f"localStorage.setItem('opstream.session', {session}); void dispatchEvent(new StorageEvent('storage', {{key: 'opstream.session'}}))")
    site.sees(theirs.name)
    wait_for("another socket", lambda: site.page.sockets and before not in site.page.sockets)
    site.until_live()
    theirs.at(5)
    site.sees("5 of 8")
    assert len(site.page.sockets) == 1 and site.is_the_same
    site.does_not_see(work.name)


def test_wrong_passwords_taken_names_and_a_closed_registration_are_told(sites, calm):
    site = sites.open(calm.apis[0].url, path="/login")
    site.fill("Username or e-mail address", "nobody")
    site.fill("Password", "wrong password")
    site.press("Sign in")
    site.sees("Incorrect username or password.")
    site.press("Create an account")
    for label, text in (("Username", "a b"), ("E-mail address", "nothing"), ("Password", PASSWORD)):
        site.fill(label, text)
    site.press("Create account")
    site.sees("letters, digits and underscores")
    site.sees("email address")
    closed = calm.add("api", REGISTRATION="closed")
    site = sites.open(closed.url)
    site.press("Create an account")
    for label, text in (("Username", "late_one"), ("E-mail address", "late@example.org"), ("Password", PASSWORD)):
        site.fill(label, text)
    site.press("Create account")
    site.sees("Registration is closed.")
    closed.stop()


def test_the_keyboard_is_enough_to_sign_in_and_to_create_a_collection(sites, calm):
    site = sites.open(calm.apis[0].url)
    name = "u" + os.urandom(4).hex()
    Client(calm.apis[0].url).must("POST", "/api/auth/register", {"username": name, "email": name + "@example.org", "password": PASSWORD})
    assert site.page.evaluate("document.activeElement.name") == "username"
    site.page.call("Input.insertText", text=name)
    site.page.press("Tab")
    site.page.call("Input.insertText", text=PASSWORD)
    site.page.press("Enter")
    site.sees("No collections yet")
    for _ in range(12):
        if site.page.evaluate("document.activeElement.textContent") == "New collection":
            break
        site.page.press("Tab")
    site.page.press("Enter")
    site.page.wait_for("document.activeElement.name === 'name'")
    site.page.call("Input.insertText", text="by keys " + name)
    site.page.press("Enter")
    site.sees("by keys " + name, ".collection")


# ---- what strangers write, and small screens

HOSTILE = ["<img src=x onerror=hit()>.txt", "<script>hit()</script>.txt", "\u202egnp.exe\u202c.txt", "שלום עולם.txt", "x" * 240 + ".txt", "&amp;&lt;b&gt;.txt"]


def test_what_anybody_wrote_is_shown_as_text(sites, calm, publish):
    site = sites.open(calm.apis[0].url).sign_up().until_live()
    site.page.evaluate("window.hits = 0; window.hit = () => hits++")
    client = site.client()
    description = "<b onmouseover=hit()>bold</b><script>hit()</script>" + "y" * 3000
    made = rows.ready_collection(calm, client, name="N" * 255, description=description)
    for name in HOSTILE:
        document = rows.add_document(calm, made["id"], "/r/" + name.replace("/", "∕"), status="failed", category="permanent")
        calm.sql("UPDATE documents SET error_message = :'v2' WHERE uuid = :'v1'", document, "<i>why</i> " + name[:40])
    calm.sql("UPDATE collections SET error_count = :v2 WHERE uuid = :'v1'", made["id"], len(HOSTILE))
    work = Work(calm, client, publish).start()
    for name in HOSTILE:
        work.at(1, file=name)
        site.go("Operations")
        site.page.wait_for(f"document.querySelector('.current')?.textContent === {json.dumps(name)}")
    work.tell("<u>stage</u>", message="<u>x</u>")
    for width in (1440, 375):
        site.page.resize(width, 800, is_mobile=width < 400)
        for path, words in (("/collections", "<b onmouseover=hit()>bold</b>"), ("/operations", work.name), ("/collections/" + made["id"], "<img src=x onerror=hit()>.txt")):
            site.page.evaluate(f"history.pushState(null, '', '{path}'); dispatchEvent(new PopStateEvent('popstate'))")
            site.sees(words)
            assert site.width_beyond == 0, f"{path} at {width}"
    assert site.page.evaluate("hits") == 0 and not site.page.evaluate("document.querySelector('main b, main i, main u, main script, main img')")


def test_every_screen_fits_a_phone(sites, calm, publish):
    site = sites.open(calm.apis[0].url)
    site.page.resize(375, 700, is_mobile=True)
    assert site.width_beyond == 0
    site.sign_up().until_live()
    work = Work(calm, site.client(), publish, total=123456).start().at(120000, failed=119000, file="a/very/long/path/" * 8 + "end.txt")
    for words in ("Collections", "Operations", "Search"):
        site.go(words)
        assert site.width_beyond == 0, words
    for words in ("New collection",):
        site.go("Collections")
        site.press(words)
        assert site.width_beyond == 0 and site.page.evaluate("document.querySelector('dialog').getBoundingClientRect().right") <= 375
        site.page.press("Escape")
    work.end()


def test_to_skip_to_the_content_leaves_the_screen_as_it_is(sites, calm):
    site = sites.open(calm.apis[0].url, path="/search").sign_up()
    calm.sql("UPDATE collections SET vector_count = 1 WHERE uuid = :'v1'", rows.ready_collection(calm, site.client())["id"])
    site.look_again()
    site.page.wait_for("document.querySelector('#query')?.checkVisibility()")
    skip = """document.querySelector('a.skip').click();
        while (location.hash !== '#main') await new Promise((r) => setTimeout(r, 5));
        await new Promise((r) => setTimeout(r));
        return heading.isConnected;"""
    site.page.evaluate("void (window.heading = document.querySelector('h1'))")
    assert site.page.run(skip)
    # After a search has changed the address, too.
    site.page.type("#query", "lamp")
    site.page.press("Enter")
    site.page.wait_for("location.search.includes('lamp')")
    assert site.page.run(skip)
    site.go("Operations")
    site.page.evaluate("history.back()")
    site.sees("Search", "h1")
    assert site.page.evaluate("document.querySelector('#query').value") == "lamp"


def test_an_address_that_is_none_says_so(sites, calm):
    site = sites.open(calm.apis[0].url, path="/collections/not-there").sign_up()
    site.sees("Collection with ID 'not-there' not found.")
    site.page.go(calm.apis[0].url + "/pipeline/7")
    site.sees("There is no such screen")
