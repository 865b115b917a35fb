"""Hides secrets in what is going to be logged or traced; a part of ``app.observability``."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

REDACTED = "[REDACTED]"
# Names whose values are secret, in lower case; * stands for anything. APP_REDACTED_PARAMETERS replaces them.
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
    "*authorization",
    "auth",
    "*credential*",
    "*session*",
    "*cookie*",
    "*signature*",
    "sig",
    "jwt",
    "otp",
)
NAME_MAX = 64  # the end of a longer name is looked at, which bounds the time that it takes

# name= and its escaped forms in URLs; name: as in headers; "name": "..., and b'name', b'... as Python shows headers.
_NAME = re.compile(
    r"""(?ix)
    (?<![\w.%-])
    ((?: [\w.-] | %(?!(?:25)*3d)[0-9a-f]{2} )++)
    (?: = | %(?:25)*+3d | \\?["']?\s*+:\s*+ | ',\s?(?=b') )
    (?: b?\\?["'] )?
    """
)
_VALUE = re.compile(
    r"""(?ix)
    (?<=") [^"\\]*+ | (?<=') [^'\\]*+
    | (?:(?:basic|bearer|digest|token)\s++)? [^\s&;,"'\\<>(){}\[\]]*+
    """
)
_LINE = re.compile(r"""[^\r\n"']*+""")  # a header may have several values
_BEARER = re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]++")
_USER = re.compile(r"""(?<=//)[^\s/@:"']*+:[^\s/@"']*+(?=@)""")


class Redactor:
    """Replaces the values that belong to secret names.

    Args:
        names: The names, in any case; ``*`` stands for anything.
    """

    def __init__(self, names: Iterable[str] = SECRET_NAMES) -> None:
        patterns = [re.escape(name).replace(r"\*", ".*") for name in names if name]
        self._secret = re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE | re.DOTALL)
        self._hides = lru_cache(maxsize=1024)(self._is_secret)  # most names come again and again

    def _is_secret(self, name: str) -> bool:
        last = re.split(r"[^\w.-]", unquote(unquote(name)))[-1]
        return self._secret.fullmatch(last) is not None

    def hides(self, name: str) -> bool:
        """Tell whether the values of a name are secret; it may be escaped, as in URLs."""
        return self._hides(name[-NAME_MAX:])

    def text(self, text: str) -> str:
        """Return a URL, a message or a traceback without the secrets in it."""
        if not ("=" in text or ":" in text or "%" in text or "', b'" in text):
            # Most text, such as a path, has none of these, and no time to lose.
            return _BEARER.sub(REDACTED, text) if "earer" in text.lower() else text
        text = _USER.sub(REDACTED, text)
        kept, start = [], 0
        for name in _NAME.finditer(text):
            if name.start() < start or not self.hides(name[1]):
                continue
            whole_line = name[1].lower().endswith(("authorization", "cookie"))
            quoted = name[0][-1] in "\"'"
            value = (_LINE if whole_line and not quoted else _VALUE).match(text, name.end())
            end = value.end() if value else name.end()
            if end > name.end():
                kept += [text[start : name.end()], REDACTED]
                start = end
        return _BEARER.sub(REDACTED, "".join([*kept, text[start:]]))

    def named(self, name: str, value: Any) -> Any:
        """Return what is going to be JSON without the secrets in it, at any depth.

        Args:
            name: Of the member that it becomes.
            value: Anything; what JSON does not know becomes text.
        """
        if self.hides(name):
            return REDACTED
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, dict):
            return {str(each): self.named(str(each), value[each]) for each in value}
        if isinstance(value, bytes):
            return self.text(value.decode("latin-1"))
        if isinstance(value, tuple) and len(value) == 2:  # such as a header
            first = self.named("", value[0])
            return [first, self.named(str(first), value[1])]
        if isinstance(value, list | tuple | set | frozenset):
            return [self.named("", each) for each in value]
        return self.text(str(value))
