"""Accounts, tokens, keys; and those who guess."""
import base64
import hashlib
import hmac
import json
import threading
import time

import pytest
from support.api import PASSWORD, SECRET, Api


@pytest.fixture(scope="module")
def api():
    made = Api().wait_ready()
    made.register("boss")
    yield made
    made.close()


@pytest.fixture
def make_api():
    made = []

    def make(**settings):
        made.append(Api(**settings).wait_ready())
        return made[-1]

    yield make
    for one in made:
        one.close()


def encoded(value):
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def signed(claims, secret=SECRET, header=None):
    text = encoded(header or {"alg": "HS256", "typ": "JWT"}) + "." + encoded(claims)
    return text + "." + encoded(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def claims_of(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def refused(answer, status, detail, challenge=None):
    assert answer.status == status, answer
    assert answer.json["detail"] == detail
    assert answer.headers.get("WWW-Authenticate") == challenge
    return answer


# --- accounts

def test_a_user_is_shown_without_secrets(api):
    user, tokens = api.new_user()
    shown = api.must("GET", "/api/auth/me", token=tokens["access_token"])
    assert set(shown) == {"id", "username", "email", "full_name", "is_active", "is_superuser", "created_at", "updated_at", "last_login"}
    assert shown["last_login"] and not user["last_login"] and shown["id"] == user["id"]
    assert shown["is_active"] is True and shown["is_superuser"] is False
    assert api.must("GET", "/api/v2/auth/me", token=tokens["access_token"]) == shown


@pytest.mark.parametrize("field, value", [("username", "ab"), ("username", "a b c"), ("username", "ünders"), ("username", "x" * 65), ("username", 7),
                                          ("email", "no address"), ("email", "a@b"), ("email", "@example.org"), ("email", "a b@example.org"),
                                          ("email", "a@@example.org"), ("password", "short"), ("password", "x" * 300), ("password", None)])
def test_bad_fields_are_told(api, field, value):
    body = {"username": "someone", "email": "someone@example.org", "password": PASSWORD, field: value}
    answer = api.request("POST", "/api/auth/register", body)
    assert answer.status == 422
    assert [e["loc"] for e in answer.json["detail"]] == [["body", field]]
    assert answer.json["detail"][0]["msg"]


def test_a_taken_name_or_address_is_a_conflict(api):
    user = api.register()
    other = {"username": user["username"].upper(), "email": "other@example.org", "password": PASSWORD}
    refused(api.request("POST", "/api/auth/register", other), 409, "Username already registered")
    other = {"username": user["username"] + "x", "email": user["email"].upper(), "password": PASSWORD}
    refused(api.request("POST", "/api/v2/auth/register", other), 409, "Email already registered")


def test_of_many_at_once_one_is_the_first(make_api):
    api = make_api()
    got = []
    threads = [threading.Thread(target=lambda: got.append(api.register())) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) == 6 and sum(u["is_superuser"] for u in got) == 1


def test_registration_can_be_closed(make_api):
    closed = make_api(REGISTRATION="closed")
    body = {"username": "someone", "email": "someone@example.org", "password": PASSWORD}
    refused(closed.request("POST", "/api/auth/register", body), 403, "Registration is closed")
    first = make_api(REGISTRATION="first")
    assert first.register("someone")["is_superuser"]
    refused(first.request("POST", "/api/auth/register", {**body, "username": "other", "email": "b@example.org"}), 403, "Registration is closed")


# --- signing in

def test_name_and_address_sign_in(api):
    user = api.register()
    for login in (user["username"], user["email"], user["username"].upper()):
        tokens = api.login(login)
        assert tokens["token_type"] == "bearer"
    claims = claims_of(tokens["access_token"])
    assert claims["sub"] == user["username"] and claims["user_id"] == user["id"] and claims["type"] == "access"
    assert 86000 < claims["exp"] - time.time() < 86500
    assert claims_of(tokens["refresh_token"])["type"] == "refresh"
    assert claims_of(tokens["refresh_token"])["jti"]


def test_a_wrong_password_and_an_unknown_name_read_the_same(api):
    user = api.register()
    for body in ({"username": user["username"], "password": "wrong"}, {"username": "nobody", "password": "wrong"}, {"username": "", "password": ""}):
        answer = api.request("POST", "/api/auth/login", body)
        if body["username"]:
            refused(answer, 401, "Incorrect username or password")
        else:
            assert answer.status == 422


def test_an_inactive_user_is_let_in_nowhere(api):
    user, tokens = api.new_user()
    api.sql(f"UPDATE users SET is_active = false WHERE id = {user['id']}")
    refused(api.request("GET", "/api/auth/me", token=tokens["access_token"]), 403, "Inactive user")
    refused(api.request("POST", "/api/auth/login", {"username": user["username"], "password": PASSWORD}), 403, "Inactive user")
    refused(api.request("POST", "/api/auth/refresh", {"refresh_token": tokens["refresh_token"]}), 403, "Inactive user")


def test_a_hash_of_the_ancestor_is_replaced_at_the_next_login(api):
    user = api.register()
    bcrypt = "$2b$04$abcdefghijklmnopqrstuuWd0DJmUBTIeQQeCN0nTZQ3t7dGLyzCO"
    hashed = make_bcrypt(PASSWORD) or bcrypt
    api.sql(f"UPDATE users SET password_hash = '{hashed}' WHERE id = {user['id']}")
    api.login(user["username"])
    assert api.sql(f"SELECT password_hash FROM users WHERE id = {user['id']}").startswith("$argon2id$")
    api.login(user["username"])


def make_bcrypt(password):
    """By libcrypt, which the program itself uses too; Python's own module is not everywhere."""
    import ctypes
    import ctypes.util
    libcrypt = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    libcrypt.crypt.restype = ctypes.c_char_p
    return libcrypt.crypt(password.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()


# --- tokens

def test_without_a_token_nobody_is_known(api):
    refused(api.request("GET", "/api/auth/me"), 401, "Not authenticated", "Bearer")
    for value in ("", "Bearer", "Bearer ", "Basic YTpi", "Bearertoken"):
        refused(api.request("GET", "/api/auth/me", headers={"Authorization": value}), 401, "Not authenticated", "Bearer")


def test_forged_and_expired_tokens_are_refused(api):
    user, tokens = api.new_user()
    good = {"sub": user["username"], "user_id": user["id"], "exp": int(time.time()) + 100, "type": "access"}
    assert api.request("GET", "/api/auth/me", token=signed(good)).status == 200
    bad = [signed(good, secret="another secret that is long enough too"), signed({**good, "exp": int(time.time()) - 1}), signed({**good, "type": "refresh"}),
           signed(good, header={"alg": "none"}), signed(good, header={"alg": "HS512"}), signed({**good, "user_id": 987654321}),
           encoded({"alg": "none"}) + "." + encoded(good) + ".", signed({k: v for k, v in good.items() if k != "exp"}),
           tokens["refresh_token"], tokens["access_token"][:-2] + "xx", "a.b.c", "..", "a..c", tokens["access_token"] + "=", "x." + "y" * 6000 + ".z"]
    for token in bad:
        refused(api.request("GET", "/api/auth/me", token=token), 401, "Invalid authentication credentials", "Bearer")
    for token in ("nonsense", "smtk_", "smtk_a", "smtk__", "smtk_a_b", "a.b", "a.b.c.d", tokens["access_token"] + ".x"):
        refused(api.request("GET", "/api/auth/me", token=token), 401, "Invalid API key", "Bearer")


def test_an_api_key_lets_its_owner_in_but_never_as_superuser(api):
    key = "smtk_abc123_" + "s" * 32
    boss = api.sql("SELECT id FROM users WHERE username = 'boss'")
    api.sql(f"INSERT INTO api_keys (user_id, name, prefix, secret_hash) VALUES ({boss}, 'k', 'abc123', '{hashlib.sha256(key.encode()).hexdigest()}')")
    assert api.must("GET", "/api/auth/me", token=key)["username"] == "boss"
    refused(api.request("GET", "/api/auth/me", token=key[:-1]), 401, "Invalid API key", "Bearer")
    api.sql("UPDATE api_keys SET revoked_at = now()")
    refused(api.request("GET", "/api/auth/me", token=key), 401, "Invalid API key", "Bearer")


@pytest.mark.parametrize("path", ["/api/auth/refresh", "/auth/refresh", "/api/v2/auth/refresh"])
def test_a_refresh_token_is_good_once(api, path):
    _, tokens = api.new_user()
    fresh = api.must("POST", path, {"refresh_token": tokens["refresh_token"]})
    assert fresh["refresh_token"] != tokens["refresh_token"] and fresh["token_type"] == "bearer"
    api.must("GET", "/api/auth/me", token=fresh["access_token"])
    refused(api.request("POST", path, {"refresh_token": tokens["refresh_token"]}), 401, "Invalid refresh token", "Bearer")
    # Two have had it: neither goes on.
    refused(api.request("POST", path, {"refresh_token": fresh["refresh_token"]}), 401, "Invalid refresh token", "Bearer")


def test_another_login_is_not_touched_by_a_reuse(api):
    user, first = api.new_user()
    second = api.login(user["username"])
    api.must("POST", "/auth/refresh", {"refresh_token": first["refresh_token"]})
    api.must("POST", "/auth/refresh", {"refresh_token": first["refresh_token"]}, status=401)
    api.must("POST", "/auth/refresh", {"refresh_token": second["refresh_token"]})


def test_a_refresh_token_may_come_in_the_query(api):
    _, tokens = api.new_user()
    assert api.must("POST", "/api/auth/refresh?refresh_token=" + tokens["refresh_token"])["access_token"]


def test_a_missing_refresh_token_is_400(api):
    for body in (None, {}, {"refresh_token": None}, {"refresh_token": ""}):
        assert api.request("POST", "/api/auth/refresh", body).status == 400


def test_what_is_no_refresh_token_is_refused(api):
    _, tokens = api.new_user()
    for token in (tokens["access_token"], "nonsense", "a.b.c", signed({"sub": "boss", "user_id": 1, "exp": int(time.time()) + 100, "type": "refresh", "jti": "a.b"})):
        refused(api.request("POST", "/api/auth/refresh", {"refresh_token": token}), 401, "Invalid refresh token", "Bearer")


def test_of_two_refreshes_at_once_one_succeeds(api):
    _, tokens = api.new_user()
    got = []
    threads = [threading.Thread(target=lambda: got.append(api.request("POST", "/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(got) == [200, 401, 401, 401]


def test_logging_out_revokes_the_refresh_token(api):
    _, tokens = api.new_user()
    api.must("POST", "/api/auth/logout", status=401)
    assert api.must("POST", "/api/auth/logout", token=tokens["access_token"])["message"]
    assert api.must("POST", "/api/auth/logout", {"refresh_token": tokens["refresh_token"]}, token=tokens["access_token"])["message"]
    refused(api.request("POST", "/auth/refresh", {"refresh_token": tokens["refresh_token"]}), 401, "Invalid refresh token", "Bearer")


def test_nobody_logs_another_out(api):
    _, mine = api.new_user()
    _, other = api.new_user()
    api.must("POST", "/api/auth/logout", {"refresh_token": mine["refresh_token"]}, token=other["access_token"])
    api.must("POST", "/auth/refresh", {"refresh_token": mine["refresh_token"]})


# --- guessing

def guess_until_refused(api, name):
    for i in range(30):
        answer = api.request("POST", "/api/auth/login", {"username": name, "password": f"guess {i}"})
        if answer.status != 401:
            return i, answer
    raise AssertionError("never refused")


def test_what_was_refused_does_not_count_against_a_users_rate_limit(make_api):
    api = make_api(RATE_LIMITS="on")
    user = api.register()
    token = api.login(user["username"])["access_token"]
    missing = "00000000-0000-4000-8000-000000000000"
    ask = lambda body: api.request("POST", f"/api/v2/collections/{missing}/reindex", body, token=token).status  # noqa: E731 - once in five minutes
    assert [ask({"chunk_size": 1}), ask({}), ask({"chunk_size": 1}), ask({})] == [422, 404, 422, 404]
    guests = [api.request("POST", "/api/auth/register", {"username": "x"}).status for _ in range(31)]
    assert guests[0] == 422 and guests[-1] == 429, "guests' requests stay counted"


@pytest.mark.parametrize("redis_is_away", [False, True])
def test_guessing_is_slowed_with_and_without_redis(make_api, redis_is_away):
    api = make_api(RATE_LIMITS="off")
    user, other = api.register(), api.register()
    if redis_is_away:
        api.redis.shut()
    tries, answer = guess_until_refused(api, user["username"])
    assert 10 <= tries <= 15
    body = answer.json
    assert answer.status == 429
    assert body["detail"] == "Rate limit exceeded" and body["error"] == "rate_limit_exceeded" and body["limit"]
    assert int(answer.headers["Retry-After"]) == body["retry_after"] > 0
    for name in ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"):
        assert answer.headers[name].isdigit()
    # The address is the same account; the right password waits as well; others are not held up.
    assert api.request("POST", "/api/auth/login", {"username": user["email"], "password": PASSWORD}).status == 429
    api.login(other["username"])
