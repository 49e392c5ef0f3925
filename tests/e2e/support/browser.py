"""Headless Chromium, driven over the DevTools protocol through a pipe. Standard library only.

    with Browser() as browser:
        page = browser.page("http://127.0.0.1:8080/")
        page.wait_for("document.querySelector('h1')?.textContent === 'Collections'")
        title = page.evaluate("document.title")          # a value, or what a promise gives
        page.screenshot("/tmp/page.png")
        assert page.errors == []                          # exceptions and console.error of the page
"""
import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from .stack import PATIENCE

PROGRAMS = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")


def program():
    """CHROMIUM, or what Debian's package installs. (Not its wrapper: that is a shell script, which a signal would not reach through.)"""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert found, "Chromium is missing: make setup"
    return found


class PageError(AssertionError):
    """What a script in the page threw."""


class Browser:
    """One Chromium with a fresh profile. `flags`: more of its command line."""

    def __init__(self, *flags):
        self.dir = tempfile.mkdtemp(prefix="opstream-chromium-")
        self.log = os.path.join(self.dir, "log")
        self.lock = threading.Condition()
        self.answers, self.pages, self.count, self.is_gone = {}, {}, 0, False
        commands, self.to = os.pipe()
        self.source, events = os.pipe()
        command = [program(), "--headless=new", "--remote-debugging-pipe", "--user-data-dir=" + os.path.join(self.dir, "profile"), "--no-first-run",
                   "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
                   "--disable-sync", "--disable-default-apps", "--mute-audio", "--hide-scrollbars", "--window-size=1280,900", "--password-store=basic", *flags]
        if os.getuid() == 0:
            command.append("--no-sandbox")
        # The protocol's pipe is descriptors 3 and 4.
        launcher = ["bash", "-c", 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"', "bash", str(commands), str(events), *command, "about:blank"]
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(launcher, pass_fds=(commands, events), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                          env={**os.environ, "HOME": self.dir, "XDG_CACHE_HOME": self.dir, "XDG_CONFIG_HOME": self.dir})
        os.close(commands)
        os.close(events)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.version = self.call("Browser.getVersion")["product"]
        except BaseException:
            self.close()
            raise

    def call(self, method, session=None, **parameters):
        """One command of the protocol; its result."""
        with self.lock:
            self.count += 1
            number = self.count
            message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
            data = json.dumps(message).encode() + b"\0"
            while data:
                data = data[os.write(self.to, data):]
            assert self.lock.wait_for(lambda: number in self.answers or self.is_gone, PATIENCE), f"Chromium does not answer {method}"
            answer = self.answers.pop(number, None)
        if answer is None:
            raise AssertionError("Chromium has ended:\n" + self.tail())
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self):
        rest = b""
        with contextlib.suppress(OSError):
            while data := os.read(self.source, 1 << 20):
                *messages, rest = (rest + data).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))
        with self.lock:
            self.is_gone = True
            self.lock.notify_all()

    def _take(self, message):
        with self.lock:
            if "id" in message:
                self.answers[message["id"]] = message
                self.lock.notify_all()
                return
            page = self.pages.get(message.get("sessionId"))
            if page:
                page.take(message["method"], message["params"])

    def page(self, url="about:blank", isolated=False, context=None):
        """A new tab, loaded. `isolated`: with cookies and storage of its own; `context`: with those of that browser context."""
        context = self.call("Target.createBrowserContext")["browserContextId"] if isolated else context
        more = {"browserContextId": context} if context else {}
        target = self.call("Target.createTarget", url="about:blank", **more)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        made = Page(self, target, session)
        with self.lock:
            self.pages[session] = made
        for domain in ("Page", "Runtime", "Log", "Network"):
            made.call(domain + ".enable")
        if url != "about:blank":
            made.go(url)
        return made

    def tail(self):
        with open(self.log, errors="replace") as file:
            return "".join(file.readlines()[-30:])

    def close(self):
        if self.child.poll() is None:
            with contextlib.suppress(OSError):
                os.write(self.to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, 9)
                self.child.wait()
        with contextlib.suppress(OSError):
            os.close(self.to)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class Page:
    """One tab. `errors`: texts of uncaught exceptions and of console.error. `failed_loads`: what the browser itself complained of (a refused
    connection, a 404), which a page cannot prevent. `console`: all that was printed."""

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.errors, self.failed_loads, self.console, self.sockets = [], [], [], {}
        self.loads = 0

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def take(self, method, event):
        if method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled":
            text = " ".join(str(a.get("value", a.get("description", a.get("type")))) for a in event["args"])
            self.console.append(f"{event['type']}: {text}")
            if event["type"] in ("error", "assert"):
                self.errors.append(text)
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.failed_loads.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Network.webSocketCreated":
            self.sockets[event["requestId"]] = event["url"]
        elif method == "Network.webSocketClosed":
            self.sockets.pop(event["requestId"], None)

    def go(self, url):
        """Loads a page; returns when it has loaded."""
        before = self.loads
        problem = self.call("Page.navigate", url=url).get("errorText")
        assert not problem, f"{url}: {problem}"
        self._wait(lambda: self.loads > before, f"{url} to load")

    def reload(self):
        before = self.loads
        self.call("Page.reload")
        self._wait(lambda: self.loads > before, "the page to load again")

    def evaluate(self, expression):
        """What the JavaScript gives, as JSON would carry it; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(f"{details.get('exception', {}).get('description') or details['text']}\nin: {expression[:500]}")
        return answer["result"].get("value")

    def run(self, body):
        """The statements of an async function; `return` gives a value."""
        return self.evaluate("(async () => {" + body + "\n})()")

    def wait_for(self, expression, seconds=PATIENCE):
        """The expression's first true value (true for an element or a function)."""
        return self._wait(lambda: self.evaluate(f"(async () => {{ const v = await ({expression}); return v instanceof Node || typeof v === 'function' ? true : v; }})()"),
                          expression, seconds)

    def _wait(self, condition, what, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s in vain for {what}; errors of the page: {self.errors} {self.failed_loads[-5:]}")
            time.sleep(0.02)
        return value

    # What a person does. Selectors are CSS.

    def text(self, selector="body"):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def click(self, selector):
        """A real click in the middle of the element, which is scrolled to first."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})")
        x, y = self.evaluate(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
                             " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """Focuses the element, replaces what is in it."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})")
        self.evaluate(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select?.(); }})()")
        self.call("Input.insertText", text=text)

    def press(self, key):
        """A key that types nothing or ends a line: Enter, Tab, Escape, ArrowDown, …"""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "Backspace": 8}[key]
        more = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def go_offline(self, is_offline=True):
        """The browser's own switch: requests fail, `navigator.onLine` and its events tell. (WebSockets that are open stay.)"""
        self.call("Network.emulateNetworkConditions", offline=is_offline, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def resize(self, width, height, is_mobile=False, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path, is_full=False):
        """A PNG of what is in view, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_full)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
        with self.browser.lock:
            self.browser.pages.pop(self.session, None)
