"""Redact secrets by their names. Examples: ``tests/observability/test_redaction.py``."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

REDACTED = "[REDACTED]"
# Case-insensitive. "*" matches letters, digits, "_", "." and "-"; "?" limits to query strings.
SECRET_NAMES = (
    "*password*", "*passwd*", "passphrase", "pwd", "*secret*", "*token*", "*api*key*",
    "*access*key*", "*private*key*", "*client*key*", "*authorization", "auth", "*credential*",
    "*session*", "*sessid*", "*cookie*", "*csrf*", "*signature*", "sig", "jwt", "otp", "mfa*",
    "?code", "?key", "?pass", "?pin", "?sid",
)  # fmt: skip
TEXT_MAX = 4096  # characters of a text, or of all text in a structured value
SHORT_MAX = 128  # characters; results for values up to this length are cached
NAME_MAX = 96  # characters; only the end of a longer name is compared
DEPTH_MAX = 20  # levels of a structured value
STACK = "exception.stacktrace"  # this attribute is truncated at its start
CONTAINERS = (dict, list, tuple, set, frozenset)

_CREDENTIALS = re.compile(  # Bearer mF_9.B5   Cookie: a="x"; b=y   //jane:x@   not: bearer token
    r"""(?ix) (?P<scheme> (?<![a-z])bearer(?:[ \t+]|%20)++ )
      (?! (?:tokens?|auth\w*+|scheme|realm|of|is)(?![\w.~+/%-]) ) [\w.~+/=%-]++
    | (?P<header> (?:authorization|cookie)[ \t]*+[:=][ \t]*+ )
      (?![\[({]) (?: [^\r\n"'=\\] | \\(?!["'])| =(?:\\*+["'][^\r\n"']*+["']?+|[{\[][^\r\n;]*+)?+ )++
    | (?<=//)[^\s/@:"']*+:[^\s/"']*(?=@)"""
)
_NAME = re.compile(  # token=   &user[pwd] =   %22pwd%22%3A   X-Api-Key:   \"pwd\":   (b'pwd', b'
    r"""(?ix) (?: (?<![\w.%-](?=[\w.%-])) | (?<=3[ad])(?:(?<=%..)|(?<=%25..)) )
    (?P<pair> (?<=\(["']) | (?<=\(b["']) )?
    (?! (?<=[a-z][ ]) (?:  # prose   unexpected token: ')'   bad password: must be
        (?:token|session|secret|credential|signature)s?:[ ](?!basic|bearer|digest)
        (?: ["'`][^\w\s]{1,3}["'`] | ["'`]?[a-z]{1,20}["'`]? )
      | [\w-]++:[ ](?!basic|bearer|digest|token)[a-z]++[ ][a-z]++ ) (?![^\s.,;)]) )
    (?P<name> [?&]? (?: [\w.-] | %(?!(?:25)*+3[ad])[0-9a-f]{2} )++ (?: \[[\w.%-]{0,64}+\] ){0,4}+ )
    (?: ["']?\]?(?:\+*+=|[ \t]++==?[ \t]*+) | %(?:25)*+3[ad] | \\*+["']\s*+:\s*+
      | [ \t]*+(?<!\.py):(?!:)[ \t]*+ | (?(pair) ["'],\s?(?=b?["']) | (?!) ) )"""
)
_FLAT = r"""(?: [^\[\](){}"'\\] | \\. | "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' )"""  # a, "b ]"
_VALUE = re.compile(  # "a \" b"   b'a'   \"a\"   ["a", ["b"]]   Bearer x   a,b   only a of a,b=c
    r"""(?xs) (?: b?(?P<quote> \\*+["'] ) )? (?P<value> (?(quote)
      (?: (?!(?P=quote)) (?: \\\\(?:\\.)?+ | \\.?+ | [^\\] ) )++ | (?:
        [\[({] (?: FLAT | [\[({] FLAT*+ [\])}] )*+ [\])}] | [\[({] .*+
      | (?: (?i:basic|bearer|digest|token)[ \t]++ )?+ (?: \[REDACTED\] | [^\s&;,"'\\<>(){}\[\]]
      | \\(?![\\"'nrt]) | ,(?![\s&;,"'\\<>(){}\[\]]|[\w.-]++=|\Z) )++ )))""".replace("FLAT", _FLAT)
)
_COUNT_NAME = re.compile(  # max_tokens   tokenCount   sessions   session.timeout
    r"""(?x) (?: (?<![A-Za-z]) | (?<=[a-z])(?=[A-Z]) ) (?i: counts?|total|max|min|limit|used|usage
      |length|timeout|ttl|(?:token|session|cookie|password|secret|key|credential)s) (?![a-z])"""
)
_NUMBERS = re.compile(  # 4096   1,234.5   1e-05   50%   [1, 2]   {"prompt": 12, "completion": 30}
    r"""(?x) (?: [+-]?\d[\d.]*+(?:e[+-]?\d++)?+%?(?!\w) | ["']\w++["']\s*+: | [\[\](){},\s] )++"""
)


def secret_names(text: str) -> tuple[str, ...]:
    """Split comma-separated names. After a leading "+", they are added to `SECRET_NAMES`."""
    names = tuple(name for part in text.lstrip("+ ").split(",") if (name := part.strip()))
    return SECRET_NAMES + names if not names or text.strip().startswith("+") else names


class Redactor:
    """Replaces values of secret names, bearer tokens (RFC 6750) and URL userinfo (RFC 3986)."""

    def __init__(self, names: Iterable[str] = SECRET_NAMES) -> None:
        patterns = [re.escape(name).replace(r"\*", r"[\w.-]*") for name in names if name]
        any_name = "|".join(patterns).replace(r"\?", "[?&]") or "(?!)"
        secret = re.compile(  # /a?code   --pwd   b'pwd'   user[pwd]   pwd[0]   not: pwd/a
            rf"""(?ix) (?: (?<![\w.-])[.-]* | (?=[?&]) ) (?P<name> {any_name} ) (?![\w.-])
            (?= [^\w.-]* (?: \[.* )? \Z | [^\[]*\] )"""
        )
        self._short_named = lru_cache(4096)(
            lambda name, text: REDACTED if self.hides(name, text) else self.text(text)
        )
        self._hides = lru_cache(1024)(lambda name: secret.search(unquote(unquote(name))))

    def hides(self, name: str, value: object = "") -> bool:
        """Return whether a name is secret, also if percent-encoded. A count, tokens=5, is not."""
        secret = self._hides(name[-NAME_MAX:]) is not None
        return secret and not (_COUNT_NAME.search(name) and _NUMBERS.fullmatch(text_of(value)))

    def text(self, text: str) -> str:
        """Return a message, URL, header line or traceback with its secrets replaced."""
        lower = text.lower()
        if "@" in lower or "bearer" in lower or "authorization" in lower or "cookie" in lower:
            text = _CREDENTIALS.sub(rf"\g<scheme>\g<header>{REDACTED}", text)
        if not ("=" in text or ":" in text or "%" in text or "(" in text):
            return text  # the usual case, several times per request
        parts, copied, position = [], 0, 0
        while found := _NAME.search(text, position):
            position = found.end()
            if self.hides(found["name"]) and (value := _VALUE.match(text, position)):
                position = value.end()
                if self.hides(found["name"], value["value"]):
                    parts += [text[copied : value.start("value")], REDACTED]
                    copied = position
        return "".join([*parts, text[copied:]])

    def short(self, text: str, size: int = TEXT_MAX, end: bool = False) -> str:
        """Return a redacted text, truncated to its first or last `size` characters."""
        if end:
            text = self.text(text)
            return text if len(text) <= size else "..." + text[-size:]
        return self.text(text) if len(text) <= size else self.text(text[: 4 * size])[:size] + "..."

    def named(self, name: str, value: Any) -> Any:
        """Return a redacted copy in JSON types, truncated to `TEXT_MAX` and `DEPTH_MAX`."""
        if isinstance(value, str) and len(value) <= SHORT_MAX:
            return self._short_named(name, value)
        return self._copy(name, value, [TEXT_MAX + 1], DEPTH_MAX)

    def _copy(self, name: str, value: Any, quota: list[int], depth: int) -> Any:
        quota[0] -= 1
        if self.hides(name, value):
            return REDACTED
        if value is None or (isinstance(value, (int, float)) and abs(value) < 1e300):  # not NaN
            return value
        if not isinstance(value, CONTAINERS):
            text = self.short(text_of(value), max(quota[0], 0), end=name == STACK)
            quota[0] -= len(text)
            return text
        if depth == 0:
            return "..."
        if isinstance(value, dict):
            # Items become pairs, which the next branch redacts by their key.
            items = ((text_of(key), item) for key, item in value.items())
            return dict(self._copy("", item, quota, depth) for item in items if quota[0] > 0)
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str | bytes):
            key = text_of(value[0])  # a dict item or a header
            return [self._copy("", key, quota, depth), self._copy(key, value[1], quota, depth - 1)]
        return [self._copy("", each, quota, depth - 1) for each in value if quota[0] > 0]


def text_of(value: object) -> str:
    """Return ``str(value)``, or the name of its type if that raises an exception."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without text>"
