"""Hides secrets in what is going to be logged or traced; a part of ``app.observability``."""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

REDACTED = "[REDACTED]"
CUT = "..."
# Names whose values are secret, in lower case. * stands for anything; a ? in front means in query
# strings only, as such names are ordinary words elsewhere.
SECRET_NAMES = (
    "*password*",
    "*passwd*",
    "passphrase",
    "pwd",
    "*secret*",
    "*token*",
    "*api*key*",
    "*access*key*",
    "*private*key*",
    "*client*key*",
    "*authorization",
    "auth",
    "*credential*",
    "*session*",
    "*sessid*",
    "*cookie*",
    "*csrf*",
    "*signature*",
    "sig",
    "jwt",
    "otp",
    "mfa*",
    "?code",
    "?key",
    "?pass",
    "?pin",
    "?sid",
)
NAME_MAX = 96  # the end of a longer name is looked at, which bounds the time that it takes
TEXT_MAX = 4096  # characters of a message, or of all that one member of a log line has
DEPTH_MAX = 20

# name= with its brackets and its escaped forms in URLs; name: as in headers; "name": "..., in JSON
# and Python; ('name', '... and (b'name', b'... as Python shows headers.
_NAME = re.compile(
    r"""(?ix)
    (?<![\w.%-])
    ( (?: [\w.-] | %(?!(?:25)*3[ad])[0-9a-f]{2} )++ (?: \[ [\w.%-]{0,64}+ \] ){0,4}+ )
    (?: \]?\+*+= | [ \t]++==?[ \t]*+ | %(?:25)*+3[ad] | \\?["']?\s*+:\s*+ | (["']),\s?(?=b?["']) )
    (?: b?(\\?["']) )?
    """
)
_PAIR = re.compile(r"\(b?[\"']$")  # before a name, and a comma after it
_QUOTED = {
    '"': re.compile(r'(?s)(?:[^"\\]|\\.)*+'),
    "'": re.compile(r"(?s)(?:[^'\\]|\\.)*+"),
    '\\"': re.compile(r'(?s)(?:[^"\\]|\\\\(?:\\.)?|\\[^"\\])*+'),
    "\\'": re.compile(r"(?s)(?:[^'\\]|\\\\(?:\\.)?|\\[^'\\])*+"),
}
_LINE = re.compile(r"""[^\r\n"']*+""")  # a header may have several values
_PLAIN = re.compile(
    r"""(?ix)
    (?:(?:basic|bearer|digest|token)\s++)?
    (?: [^\s&;,"'\\<>(){}\[\]] | ,(?=[^\s&;,"'\\<>(){}\[\]])(?![\w.-]++=) )*+
    """
)
_NESTED = re.compile(r"""(?xs) "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' | [\[({] | [\])}]""")
_BEARER = re.compile(r"(?i)((?<![a-z])bearer(?:[ \t+]|%20)++)[\w.~+/=%-]++")
_USER = re.compile(r"""(?<=//)[^\s/@:"']*+:[^\s/@"']*+(?=@)""")
# The last word of a name that may be a part of something else, and the words in brackets after it.
_WORDS = re.compile(r"""(?x) ([^\w.-])? ([\w.-]++) ((?: \[ [^\[\]]*+ \] )*+) [\s"'+\\\]]*+ \Z""")


def secret_names(setting: str) -> tuple[str, ...]:
    """Return the names in a setting: none means the defaults, and a + in front adds to them."""
    names = tuple(name for part in setting.lstrip("+ ").split(",") if (name := part.strip()))
    return SECRET_NAMES + names if not names or setting.strip().startswith("+") else names


class Redactor:
    """Replaces the values that belong to secret names.

    Args:
        names: The names, in any case; ``*`` stands for anything, ``?name`` is of query strings.
    """

    def __init__(self, names: Iterable[str] = SECRET_NAMES) -> None:
        names = [name for name in names if name]
        self._secret = _any_of(name for name in names if name[0] != "?")
        self._secret_in_query = _any_of(name.removeprefix("?") for name in names)
        self._hides = lru_cache(maxsize=1024)(self._is_secret)  # most names come again and again

    def _is_secret(self, name: str, before: str) -> bool:
        words = _WORDS.search(unquote(unquote(name)))
        if words is None:
            return self._secret.fullmatch(name) is not None
        secret = self._secret_in_query if (words[1] or before) in ("?", "&") else self._secret
        inner = re.split(r"[\[\]]+", words[3])
        return any(word and secret.fullmatch(word) for word in (words[2], *inner))

    def hides(self, name: str, before: str = "") -> bool:
        """Tell whether the values of a name are secret.

        Args:
            name: It may be escaped, as in URLs.
            before: The character in front of it.
        """
        return self._hides(name[-NAME_MAX:], before)

    def text(self, text: str) -> str:
        """Return a URL, a message or a traceback without the secrets in it."""
        if not ("=" in text or ":" in text or "%" in text or "(" in text):
            # Most text, such as a path, has none of these, and no time to lose.
            return _BEARER.sub(rf"\1{REDACTED}", text) if "earer" in text.lower() else text
        text = _USER.sub(REDACTED, text)
        kept, start = [], 0
        for name in _NAME.finditer(text):
            first = name.start()
            if first < start or not self.hides(name[1], text[first - 1 : first]):
                continue
            if name[2] and not _PAIR.search(text, max(0, first - 3), first):
                continue
            end = _end_of_value(text, name)
            if end > name.end():
                kept += [text[start : name.end()], REDACTED]
                start = end
        return _BEARER.sub(rf"\1{REDACTED}", "".join([*kept, text[start:]]))

    def query(self, query: str) -> str:
        """Return a query string, without its question mark, without the secrets in it."""
        return self.text(f"?{query}")[1:]

    def short(self, text: str, most: int = TEXT_MAX) -> str:
        """Return the beginning of a text without the secrets in it."""
        # What is cut off first is far behind, so that no name or quote before a secret is missed.
        if len(text) <= most:
            return self.text(text)
        return self.text(text[: 4 * most])[:most] + CUT

    def named(self, name: str, value: Any) -> Any:
        """Return what is going to be JSON without the secrets in it, at any depth.

        Args:
            name: Of the member that it becomes.
            value: Anything; what JSON does not know becomes text. What is too much is cut.
        """
        if isinstance(value, str) and len(value) <= TEXT_MAX:  # most values, and no time to lose
            return REDACTED if self._hides(name[-NAME_MAX:], "") else self.text(value)
        return self._named(name, value, [TEXT_MAX + 1], DEPTH_MAX)

    def _named(self, name: str, value: Any, left: list[int], depth: int) -> Any:
        left[0] -= 1
        if self.hides(name):
            return REDACTED
        if value is None or _is_number(value):
            return value
        if isinstance(value, str):
            return self._cut(value, left)
        if isinstance(value, bytes):
            return self._cut(value[: 4 * TEXT_MAX].decode("latin-1"), left)
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return self._cut(text_of(value), left)
        if depth == 0:
            return CUT
        if isinstance(value, dict):
            return {
                key: self._named(key, each, left, depth - 1)
                for anything, each in value.items()
                if left[0] > 0 and (key := self._cut(text_of(anything), left))
            }
        if isinstance(value, tuple) and len(value) == 2:  # such as a header
            first = self._named("", value[0], left, depth - 1)
            return [first, self._named(str(first), value[1], left, depth - 1)]
        return [self._named("", each, left, depth - 1) for each in value if left[0] > 0]

    def _cut(self, text: str, left: list[int]) -> str:
        text = self.short(text, max(left[0], 0))
        left[0] -= len(text)
        return text


def text_of(value: object) -> str:
    """Return anything as text, even what fails to say what it is."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without text>"


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    patterns = [re.escape(name).replace(r"\*", ".*") for name in names]
    return re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE | re.DOTALL)


def _is_number(value: object) -> bool:
    # Others, such as NaN, are not JSON, or refuse to be written.
    if isinstance(value, int):
        return value.bit_length() < 1024
    return isinstance(value, float) and math.isfinite(value)


def _end_of_value(text: str, name: re.Match[str]) -> int:
    start = name.end()
    if name[3]:
        value = _QUOTED[name[3]].match(text, start)
    elif text[start : start + 1] in ("[", "(", "{"):
        return _end_of_nested(text, start)
    elif name[1].lower().endswith(("authorization", "cookie")):
        value = _LINE.match(text, start)
    else:
        value = _PLAIN.match(text, start)
    return value.end() if value else start


def _end_of_nested(text: str, start: int) -> int:
    depth = 0
    for part in _NESTED.finditer(text, start):
        depth += (part[0] in "[({") - (part[0] in "])}")
        if depth == 0:
            return part.end()
    return len(text)
