"""The first two tables document what is redacted and what is not."""

import json
import math
import time
from typing import Any

import pytest

from app.observability.redaction import SECRET_NAMES, TEXT_MAX, Redactor, secret_names

REDACTED_TEXT = [  # text, result, case
    ("/a?token=x&page=2", "/a?token=[REDACTED]&page=2", "query string"),
    ("/cb?code=x&key=y&b=1", "/cb?code=[REDACTED]&key=[REDACTED]&b=1", "?name: query only"),
    ("/a;token=x;b=1", "/a;token=[REDACTED];b=1", "matrix parameter"),
    ("/?user[password]=x&token[]=y", "/?user[password]=[REDACTED]&token[]=[REDACTED]", "brackets"),
    ("/?%74oken=x&token%5B%5D=y", "/?%74oken=[REDACTED]&token%5B%5D=[REDACTED]", "encoded name"),
    ("/?u=%2F%3Fa%3D1%26token%3Dx&b=1", "/?u=%2F%3Fa%3D1%26token%3D[REDACTED]&b=1", "URL in a URL"),
    ("%252F%253Fcode%253Dx", "%252F%253Fcode%253D[REDACTED]", "encoded twice"),
    (
        "/?q=%7B%22a%22%3A1%2C%22pwd%22%3A%22x",
        "/?q=%7B%22a%22%3A1%2C%22pwd%22%3A[REDACTED]",
        "JSON",
    ),
    ("postgres://user:p@ss@db/a", "postgres://[REDACTED]@db/a", "userinfo of a URL"),
    (
        "Authorization: Digest a=x, b=x\nHost: a",
        "Authorization: [REDACTED]\nHost: a",
        "header line",
    ),
    ('authorization: Digest a="x", b="y"', "authorization: [REDACTED]", "quoted values"),
    ("Set-Cookie: id=x; Path=/", "Set-Cookie: [REDACTED]", "several values"),
    ('Cookie: a={"b":"x"}; c=y', "Cookie: [REDACTED]", "JSON in a cookie"),
    ("curl -H 'Cookie: a=x; b=y' http://a", "curl -H 'Cookie: [REDACTED]' http://a", "quoted line"),
    ("sent Bearer x.y-z to a", "sent Bearer [REDACTED] to a", "bearer token"),
    ("Bearer%20x%3D&a", "Bearer%20[REDACTED]&a", "encoded space"),
    ("token=Bearer x and more", "token=[REDACTED] and more", "scheme and token"),
    ("password=x,y user=jane", "password=[REDACTED] user=jane", "key=value"),
    ("password=x,user=jane", "password=[REDACTED],user=jane", "key=value list"),
    ("password = a\\x and more", "password = [REDACTED] and more", "spaces, backslash"),
    ("if token == 'x y':", "if token == '[REDACTED]':", "source code"),
    ("os.environ['API_KEY'] = 'x'", "os.environ['API_KEY'] = '[REDACTED]'", "item assignment"),
    ("login --pwd=x", "login --pwd=[REDACTED]", "command-line option"),
    ("password: hunter2", "password: [REDACTED]", "YAML"),
    ("user: a\n  api_key: sk-123", "user: a\n  api_key: [REDACTED]", "YAML, indented"),
    ("the token: 4f3a", "the token: [REDACTED]", "in a sentence: a value with a digit"),
    ("the password: swordfish", "the password: [REDACTED]", "in a sentence: any word"),
    ("apiKey: x", "apiKey: [REDACTED]", "camel case"),
    ("X-Api-Key: x", "X-Api-Key: [REDACTED]", "another header"),
    ("x-token: Basic x", "x-token: [REDACTED]", "scheme"),
    ('{"pwd": "a\\"x", "a": 1}', '{"pwd": "[REDACTED]", "a": 1}', "JSON"),
    (r"{\"pwd\": \"a\\\"x\", \"a\": 1}", r"{\"pwd\": \"[REDACTED]\", \"a\": 1}", "JSON in JSON"),
    ('{"token": null, "a": 1}', '{"token": [REDACTED], "a": 1}', "any JSON value"),
    ('{"tokens": ["x]", ["y"]], "a": 1}', '{"tokens": [REDACTED], "a": 1}', "nested"),
    ('{"secrets": {"a": {"b": {"c": "x"}}}}', '{"secrets": [REDACTED]', "deeper: the whole rest"),
    ("secrets: {'a': ('x', 'y'", "secrets: [REDACTED]", "truncated text"),
    ("{'password': 'x y', 'a': 1}", "{'password': '[REDACTED]', 'a': 1}", "Python dict"),
    ("Settings(secret='x', a=1)", "Settings(secret='[REDACTED]', a=1)", "Python object"),
    ("(b'x-api-key', b\"x'x\")", "(b'x-api-key', b\"[REDACTED]\")", "header pair"),
    ("[('cookie', 'a=x; b=x')]", "[('cookie', '[REDACTED]')]", "header pair"),
    ("max_tokens=abc", "max_tokens=[REDACTED]", "name of a count, not a number"),
    ("token=123456", "token=[REDACTED]", "number, but no counting name"),
    ("redis_password=123456", "redis_password=[REDACTED]", "number, but no counting name"),
]
UNCHANGED_TEXT = [  # text, case
    ("max tokens: 4096 used", "count"),
    ("max_tokens=4096 prompt_tokens=1,024 token_count: 7", "counts"),
    ("tokens_used = 12.5 maxTokens=5 session_count=3", "counts"),
    ('{"sessions": 3, "tokens": {"prompt": 12, "completion": 30}}', "counts"),
    ("tokens: [1, 2, 3]", "numbers in brackets"),
    ("unexpected token: ')'", "sentence: punctuation"),
    ("Unexpected token: EOF", "sentence: a word"),
    ("the session: expired", "sentence: a word"),
    ("Invalid password: must be at least 8 characters", "sentence continues"),
    ("password hunter2", "prose: no = or : and no quotes"),
    ("Unexpected token '<', \"<!DOCTYPE \"... is not valid JSON", "prose"),
    ("the bearer of this, a bearer token, Bearer authentication", "prose"),
    ('WWW-Authenticate: Bearer realm="a"', "challenge"),
    ("code=404 key: a pass: 3", "?name: not in a query string"),
    ("/?zip_code=1&keyboard=us", "other names"),
    ("/?u=%2Fsession%2Fnew%3Fpage%3D2", "a path, not a name"),
    ("/app/session.py:12: DeprecationWarning", "file and line"),
    ("tests/test_token.py::test_a", "file and test"),
    ("KeyError: 'token'", "a name without a value"),
    ("['token', 'name'] f(token, 'x') ('a', 'token', 'b')", "lists, calls"),
    ("GET /items/1 200, 12:30:01, http://[::1]:80/a?b=c, a == b: {'c': 1}, 50% off", "no names"),
    ('password= "token": ""', "no value"),
]


@pytest.mark.parametrize(("text", "result"), [row[:2] for row in REDACTED_TEXT])
def test_text_redacts_secrets_and_is_idempotent(text: str, result: str) -> None:
    redactor = Redactor()
    assert redactor.text(text) == result
    assert redactor.text(result) == result


@pytest.mark.parametrize("text", [row[0] for row in UNCHANGED_TEXT])
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assert Redactor().text(text) == text


def test_question_mark_limits_a_name_to_query_strings() -> None:
    assert Redactor().text("?code=x&page=2") == "?code=[REDACTED]&page=2"
    assert Redactor().text("code=x&page=2") == "code=x&page=2"


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ({"a": [{"Password": 1, "b": None}]}, {"a": [{"Password": "[REDACTED]", "b": None}]}),
        ([("cookie", "x"), ("host", "a")], [["cookie", "[REDACTED]"], ["host", "a"]]),
        ([(b"cookie", b"x")], [["b'cookie'", "[REDACTED]"]]),
        ({b"token": "x", ("pin", 3): 4, "": 5}, {"b'token'": "[REDACTED]", "('pin', 3)": 4, "": 5}),
        ((1, 2.5, True, b"pwd=x"), [1, 2.5, True, "b'pwd=[REDACTED]'"]),
        ({"tokens": 5, "otp": 5}, {"tokens": 5, "otp": "[REDACTED]"}),
        ({"max_tokens": "5", "tokens": {"a": 1}}, {"max_tokens": "5", "tokens": {"a": 1}}),
        ({"tokens": {"a": "x"}, "keys": ["x"]}, {"tokens": "[REDACTED]", "keys": ["x"]}),
    ],
)
def test_structured_values_are_redacted(value: Any, result: Any) -> None:
    assert Redactor().named("extra", value) == result


def test_count_is_not_redacted_at_any_level() -> None:
    redactor = Redactor()
    assert redactor.named("max_tokens", "5") == "5"
    assert redactor.named("extra", {"max_tokens": "5"}) == {"max_tokens": "5"}
    assert redactor.named("max_tokens", "abc") == "[REDACTED]"


class BrokenStr:
    def __str__(self) -> str:
        raise RuntimeError


def test_any_value_becomes_json_of_limited_size() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: dict[str, Any] = {"a": 1}
    cyclic |= {"b": cyclic, "c": [cyclic], "d": (cyclic, cyclic), "tokens": cyclic}
    long = [
        "x" * 10**6,
        b"x" * 10**6,
        ["x" * 99] * 10**5,
        dict.fromkeys(range(10**6)),
        [[]] * 10**6,
    ]
    for value in (
        deep,
        cyclic,
        BrokenStr(),
        {BrokenStr(): BrokenStr()},
        math.nan,
        -math.inf,
        10**9999,
        *long,
    ):
        assert len(json.dumps(Redactor().named("extra", value), allow_nan=False)) < 8 * TEXT_MAX
    assert Redactor().named("extra", [math.nan, BrokenStr()]) == ["nan", "<BrokenStr without text>"]


def test_text_is_redacted_before_it_is_truncated() -> None:
    assert Redactor().short("a" * 5000, 10) == "aaaaaaaaaa..."
    assert Redactor().short("a" * 10, 10) == "aaaaaaaaaa"
    assert Redactor().named("a", "b" * TEXT_MAX) == "b" * TEXT_MAX
    assert Redactor().named("a", "b" * TEXT_MAX + "c") == "b" * TEXT_MAX + "..."
    assert Redactor().short("//user:secret@host", 10) == "//[REDACTE..."


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", SECRET_NAMES),
        (" , ", SECRET_NAMES),
        ("Colour, *size,", ("Colour", "*size")),
        ("+colour, ?size", (*SECRET_NAMES, "colour", "?size")),
        ("+", SECRET_NAMES),
    ],
)
def test_secret_names_replace_or_extend_the_defaults(text: str, names: tuple[str, ...]) -> None:
    assert secret_names(text) == names


def test_only_the_given_names_are_secret() -> None:
    redactor = Redactor(["Colour", "*size", "?a.b"])
    assert redactor.text("colour=x shoe_size=42 token=x") == (
        "colour=[REDACTED] shoe_size=[REDACTED] token=x"
    )
    assert redactor.text("?a.b=1&axb=2") == "?a.b=[REDACTED]&axb=2"
    assert Redactor([]).text("token=x") == "token=x"
    assert redactor.hides("x" * 500 + "_size")
    assert not redactor.hides("sizes")


PARTS = [
    "a",
    "a.",
    "a[a]",
    "%25",
    "%2525",
    "%3A",
    "253d",
    "?",
    "=",
    " ",
    "\\",
    '"',
    '\\"',
    "[",
    "(b'",
]
PARTS += ["token=", "token ", "token[", "token: [", 'token="\\', 'pwd=\\"', "pwd=a,", "pwd=,a"]
PARTS += [
    '"tokens":[{',
    "tokens=[1,",
    "max_tokens: [1, ",
    "x token: ",
    "x password: a ",
    "('pwd', ",
]
PARTS += ["bearer ", "bearer%20", "token=bearer ", "//a:", "//:@", 'cookie="', "cookie={", "', b'"]
PARTS += ["token=[REDACTED", "e1253d", "'a': ", "a: a "]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("prefix", ["", "token: [", "%3A", "cookie: "])
def test_redaction_takes_linear_time(part: str, prefix: str) -> None:
    def seconds(size: int) -> float:
        text = prefix + part * (size // len(part))
        start = time.process_time()
        Redactor().text(text)
        return time.process_time() - start

    # Quadratic time would give a ratio of 64. Several attempts, because short times vary.
    assert any(seconds(8 * 8_000) < 24 * seconds(8_000) for _ in range(5))
