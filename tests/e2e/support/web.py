"""The page of api/web as its users handle it."""
import json
import secrets

from .client import Client

PASSWORD = "correct horse battery"


class Site:
    """One tab. Elements are found as people find them: by the words on them."""

    def __init__(self, browser, url, beside=None, path="/collections", before=""):
        """`beside`: another tab, whose storage it shares. `before`: JavaScript that runs before the page's own."""
        self.url, self.page = url, browser.page(isolated=True) if beside is None else beside.another()
        self.api = url  # for what is done beside the page
        if before:
            self.page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.page.go(url + path)
        self.mark()

    def another(self):
        """A page with the same storage."""
        browser = self.page.browser
        context = browser.call("Target.getTargetInfo", targetId=self.page.target)["targetInfo"]["browserContextId"]
        return browser.page(context=context)

    def mark(self):
        """Lost when the page is loaded again."""
        self.page.evaluate("window.isTheSame = true")

    @property
    def is_the_same(self):
        return self.page.evaluate("window.isTheSame === true")

    def find(self, words, selector="button, a, summary, label"):
        """JavaScript that gives the visible element with just these words, or with this label."""
        return (f"[...document.querySelectorAll({json.dumps(selector)})].find((e) => e.checkVisibility() && "
                f"(e.textContent.trim() === {json.dumps(words)} || e.getAttribute('aria-label') === {json.dumps(words)}))")

    def press(self, words, selector="button, a, summary, label"):
        self.page.wait_for(self.find(words, selector))
        self.page.evaluate(f"(() => {{ const e = {self.find(words, selector)}; e.focus(); e.click(); }})()")

    def go(self, screen):
        """By the navigation."""
        self.press_at(f"nav a[href='/{screen.lower()}']")
        self.sees(screen, "h1")

    def press_at(self, selector):
        self.page.wait_for(f"document.querySelector({json.dumps(selector)})?.checkVisibility()")
        self.page.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, label, text):
        """Types into the field with this label."""
        field = f"document.getElementById([...document.querySelectorAll('label')].findLast((e) => e.checkVisibility() && e.textContent === {json.dumps(label)})?.htmlFor)"
        self.page.wait_for(field)
        self.page.evaluate(f"(() => {{ const e = {field}; e.focus(); e.select(); }})()")
        self.page.call("Input.insertText", text=text)

    def sees(self, words, selector="main"):
        """Waits until the words stand there."""
        return self.page.wait_for(f"[...document.querySelectorAll({json.dumps(selector)})].some((e) => e.checkVisibility() && e.innerText.replace(/\\s+/g, ' ').includes({json.dumps(words)}))")

    def does_not_see(self, words, selector="main"):
        return self.page.wait_for(f"![...document.querySelectorAll({json.dumps(selector)})].some((e) => e.checkVisibility() && e.innerText.replace(/\\s+/g, ' ').includes({json.dumps(words)}))")

    def texts(self, selector):
        return self.page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].filter((e) => e.checkVisibility()).map((e) => e.innerText.replace(/\\s+/g, ' ').trim())")

    def facts(self, selector):
        """Label -> value of the first list of facts there."""
        return self.page.evaluate(f"""(() => {{ const all = [...(document.querySelector({json.dumps(selector + ' .facts')})?.children ?? [])];
            return Object.fromEntries(all.filter((e) => !e.hidden).map((e) => [e.children[0].textContent, e.children[1].textContent])); }})()""")

    def sign_up(self, name=None):
        self.name = name or "user_" + secrets.token_hex(4)
        self.press("Create an account")
        self.fill("Username", self.name)
        self.fill("E-mail address", self.name + "@example.org")
        self.fill("Password", PASSWORD)
        self.press("Create account")
        self.page.wait_for("document.querySelector('nav').offsetParent")
        return self

    def sign_in(self, name):
        self.name = name
        self.fill("Username or e-mail address", name)
        self.fill("Password", PASSWORD)
        self.press("Sign in")
        self.page.wait_for("document.querySelector('nav').offsetParent")
        return self

    def client(self):
        """The same user beside the page."""
        return Client(self.api, self.tokens["access"], self.name)

    def until_live(self):
        self.page.wait_for("document.querySelector('.connection')?.dataset.state === 'live'")
        return self

    @property
    def tokens(self):
        return json.loads(self.page.evaluate("localStorage.getItem('opstream.session')"))

    def change_tokens(self, **values):
        self.page.evaluate(f"localStorage.setItem('opstream.session', JSON.stringify({{...JSON.parse(localStorage.getItem('opstream.session')), ...{json.dumps(values)}}}))")

    def look_again(self):
        """As if the tab had been out of sight: everything is read anew."""
        self.page.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")

    @property
    def width_beyond(self):
        """Pixels that stand out of the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def faults(self):
        """Exceptions, errors that were printed, and what the policy refused."""
        return self.page.errors + [text for text in self.page.failed_loads if "Content Security Policy" in text or "Content-Security-Policy" in text]


class Sites:
    """Opens tabs; at the end none of them may have had a fault."""

    def __init__(self, browser):
        self.browser, self.made = browser, []

    def open(self, url, **more):
        self.made.append(Site(self.browser, url, **more))
        return self.made[-1]

    def close(self):
        faults = [fault for site in self.made for fault in site.faults()]
        for site in self.made:
            site.page.close()
        assert faults == []
