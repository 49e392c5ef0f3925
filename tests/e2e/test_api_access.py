"""Nobody gets in without a token: every route of the OpenAPI document, asked by strangers."""
import json
import re
import subprocess

import pytest
from support.api import Api, program

DOCUMENT = json.loads(subprocess.run([program(), "--openapi"], capture_output=True, check=True, timeout=60).stdout)
UUID = "0b6f2a4e-7c1d-4f3a-9e58-1d2c3b4a5f60"
ROUTES = [(method.upper(), path, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()]
GUARDED = [(m, p) for m, p, o in ROUTES if o["security"]]
OPEN = [(m, p) for m, p, o in ROUTES if not o["security"]]
FOR_SUPERUSERS = [(m, p) for m, p, o in ROUTES if o.get("x-superuser")]


FILES = ("/web/{path}", "/assets/{path}", "/clients/{path}", "/vite.svg")  # of which there is none of that name


def path_of(template):
    return re.sub(r"\{[^}]*\}", UUID, re.sub(r"/sources/\{[^}]*\}", "/sources/17", template))


@pytest.fixture(scope="module")
def api():
    made = Api().wait_ready()
    made.register("boss")
    yield made
    made.close()


@pytest.mark.parametrize("method, template", GUARDED)
def test_a_stranger_is_refused(api, method, template):
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    for token in (None, "nonsense", "a.b.c"):
        answer = api.request(method, path_of(template), raw=body, token=token)
        assert answer.status == 401, answer
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json["detail"] in ("Not authenticated", "Invalid API key", "Invalid authentication credentials")


@pytest.mark.parametrize("method, template", OPEN)
def test_what_is_open_asks_for_no_token(api, method, template):
    body = b"{}" if method == "POST" else None
    is_file = template in FILES
    assert api.request(method, path_of(template), raw=body).status in ((404,) if is_file else (200, 400, 422))


def test_what_is_for_superusers_refuses_others(api):
    _, tokens = api.new_user()
    for method, template in FOR_SUPERUSERS:
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        assert api.request(method, path_of(template), raw=body, token=tokens["access_token"]).status == 403


def test_the_document_is_served(api):
    assert api.request("GET", "/openapi.json").json == DOCUMENT
    assert len(GUARDED) > len(OPEN) / 4
