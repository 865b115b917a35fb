import json
import math
from typing import Any

import pytest

from app.observability_redaction import SECRET_NAMES, TEXT_MAX, Redactor, secret_names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a?token=x&page=2", "/a?token=[REDACTED]&page=2"),
        ("/a?page=2;API-Key=x", "/a?page=2;API-Key=[REDACTED]"),
        ("next=%2Fa%3Ftoken%3Dx&y=2", "next=%2Fa%3Ftoken%3D[REDACTED]&y=2"),
        ("/a?%74oken=x", "/a?%74oken=[REDACTED]"),
        ("%2574oken%253Dx", "%2574oken%253D[REDACTED]"),
        ("url=http://a/?session_id=x", "url=http://a/?session_id=[REDACTED]"),
        ("postgres://user:x@db/a", "postgres://[REDACTED]@db/a"),
        ("Authorization: Digest a=x, b=x\nHost: a", "Authorization: [REDACTED]\nHost: a"),
        ("set-cookie: id=x; Path=/", "set-cookie: [REDACTED]"),
        ("sent Bearer x.y-z to a", "sent Bearer [REDACTED] to a"),
        ("token=Bearer x and more", "token=[REDACTED] and more"),
        ("{'password': 'x y', 'a': 1}", "{'password': '[REDACTED]', 'a': 1}"),
        (r"{\"jwt\": \"x\"}", r"{\"jwt\": \"[REDACTED]\"}"),
        ("[(b'cookie', b'x; y')]", "[(b'cookie', b'[REDACTED]')]"),
        ("/?user[password]=x&a=1", "/?user[password]=[REDACTED]&a=1"),
        ("/?password[]=x&password[0][1]=x", "/?password[]=[REDACTED]&password[0][1]=[REDACTED]"),
        ("/?token%5B%5D=x&a=1", "/?token%5B%5D=[REDACTED]&a=1"),
        ("/?user%5Bpassword%5D=x", "/?user%5Bpassword%5D=[REDACTED]"),
        ("/?token%20=x&api_key+=x", "/?token%20=[REDACTED]&api_key+=[REDACTED]"),
        ("/?q=%7B%22password%22%3A%22x%22%7D&a=1", "/?q=%7B%22password%22%3A[REDACTED]&a=1"),
        ("/?q=%257B%2522pwd%2522%253A%2522x&a=1", "/?q=%257B%2522pwd%2522%253A[REDACTED]&a=1"),
        ('/?q={"password":"x"}&a=1', '/?q={"password":"[REDACTED]"}&a=1'),
        ("/?code=x&state=1", "/?code=[REDACTED]&state=1"),
        ("/?a=1&pass=x&pin=x", "/?a=1&pass=[REDACTED]&pin=[REDACTED]"),
        ("/?sid=x&key=x&PHPSESSID=x", "/?sid=[REDACTED]&key=[REDACTED]&PHPSESSID=[REDACTED]"),
        ("/?csrf=x&client_key=x", "/?csrf=[REDACTED]&client_key=[REDACTED]"),
        ("/?mfa_code=x&next=/a%3Fcode%3Dx", "/?mfa_code=[REDACTED]&next=/a%3Fcode%3D[REDACTED]"),
        ("[('x-api-key', 'x y'), ('a', 'b')]", "[('x-api-key', '[REDACTED]'), ('a', 'b')]"),
        ("[('cookie', 'a=x; b=x')]", "[('cookie', '[REDACTED]')]"),
        ("""(b'x-api-key', b"x'x")""", """(b'x-api-key', b"[REDACTED]")"""),
        ("password = x and more", "password = [REDACTED] and more"),
        ("if token == 'x y':", "if token == '[REDACTED]':"),
        ("{'password': ['x', 'y'], 'a': 1}", "{'password': [REDACTED], 'a': 1}"),
        ('{"tokens": ["x]", ["y"]], "a": 1}', '{"tokens": [REDACTED], "a": 1}'),
        ("secrets: {'a': ('x', 'y'", "secrets: [REDACTED]"),
        (r'{"password": "a\"x", "a": 1}', r'{"password": "[REDACTED]", "a": 1}'),
        (r"{\"pwd\": \"a\\\"x\", \"a\": 1}", r"{\"pwd\": \"[REDACTED]\", \"a\": 1}"),
        ("password=a,x, b=1", "password=[REDACTED], b=1"),
        ("password=x,user=jane", "password=[REDACTED],user=jane"),
        ("sent Bearer  x to a", "sent Bearer  [REDACTED] to a"),
        ("sent%20Bearer%20x%3D&a", "sent%20Bearer%20[REDACTED]&a"),
    ],
)
def test_secrets_are_hidden_wherever_a_name_says_so(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("GET /items/1 200", "author=jane", "12:30:01", "a == b: {'c': 1}", "50% off", "sig"),
        *(
            "code=404",
            "failed: code=7, key=a, pin=3",
            "key: a",
            "pass: 3",
            "/?zip_code=1&keyboard=us",
        ),
        *("['token', 'name']", "('a', 'token', 'b')", "f(token, 'x')", "a[token] b", "tokens (3)"),
        *("http%3A%2F%2Fa%2F%3Fpage%3D2", "/a?q=%7B%22name%22%3A%22x%22%7D", "{'a': ['token']}"),
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": {"Password": 1}}, {"a": {"Password": "[REDACTED]"}}),
        ([(b"cookie", b"x"), (b"host", b"a")], [["cookie", "[REDACTED]"], ["host", "a"]]),
        ([1, None, "pwd=x"], [1, None, "pwd=[REDACTED]"]),
        (
            {b"token": 1, "code": 2, ("pin", 3): 4},
            {"b'token'": "[REDACTED]", "code": 2, "('pin', 3)": 4},
        ),
    ],
)
def test_secrets_are_hidden_inside_of_values(value: Any, shown: Any) -> None:
    assert Redactor().named("extra", value) == shown


def test_a_query_string_hides_what_is_ordinary_elsewhere() -> None:
    assert Redactor().query("code=x&page=2") == "code=[REDACTED]&page=2"
    assert Redactor().text("code=x&page=2") == "code=x&page=2"


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", SECRET_NAMES),
        (" , ", SECRET_NAMES),
        ("Colour, *size,", ("Colour", "*size")),
        ("+colour, ?size", (*SECRET_NAMES, "colour", "?size")),
        ("+", SECRET_NAMES),
    ],
)
def test_a_setting_replaces_the_names_or_adds_to_them(setting: str, names: tuple[str, ...]) -> None:
    assert secret_names(setting) == names


class Silent:
    def __str__(self) -> str:
        raise RuntimeError


def test_anything_becomes_json() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: dict[str, Any] = {"a": 1}
    cyclic |= {"b": cyclic, "c": [cyclic], "d": (cyclic, cyclic)}
    for value in (deep, cyclic, Silent(), {Silent(): Silent()}, float("nan"), -math.inf, 10**9999):
        assert len(json.dumps(Redactor().named("extra", value), allow_nan=False)) < 50_000
    assert Redactor().named("extra", [math.nan, Silent()]) == ["nan", "<Silent without text>"]


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, ["x" * 99] * 10**5, dict.fromkeys(range(10**6)), [[]] * 10**6],
)
def test_what_is_too_much_is_cut(value: Any) -> None:
    assert len(json.dumps(Redactor().named("extra", value))) < 8 * TEXT_MAX


def test_a_text_is_cut_behind_its_secrets() -> None:
    assert Redactor().short("a" * 5000, 10) == "aaaaaaaaaa..."
    assert Redactor().short("a" * 10, 10) == "aaaaaaaaaa"
    assert Redactor().short("//user:secret@host", 10) == "//[REDACTE..."


PARTS = [
    "a",
    "token=",
    "//a:",
    "%25",
    "api",
    "a: ",
    "', b'",
    "bearer ",
    "a[a]",
    "[",
    "token: [",
    "('pwd', ",
]
PARTS += [
    "token ",
    'token="\\',
    'pwd=\\"',
    "pwd=a,",
    "bearer%20",
    "%3A",
    "a.",
    "token[",
    "(b'",
    "pwd=,a",
]


@pytest.mark.parametrize("part", PARTS)
def test_long_text_takes_time_in_proportion(part: str) -> None:
    Redactor().text(part * (500_000 // len(part)))  # would take hours
