"""Documents and configuration files use the established technical terms."""

import re
from pathlib import Path

import pytest

from tests.support.template import ROOT, TEMPLATE

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tests/README.md",
    *(TEMPLATE / name for name in ("README.md", "backend/README.md", "CLAUDE.md", ".env.example")),
    *sorted((TEMPLATE / "observability").rglob("*.md")),
    *(TEMPLATE / name for name in ("compose.yml", "compose.observability.yml", "Makefile")),
    *sorted((TEMPLATE / "observability").rglob("*.yml")),
]
# Pattern -> the terms to use instead.
FORBIDDEN = {
    r"search(es|ed)? for garbage": "garbage collection",
    r"shares? of (new )?traces": "sampling ratio",
    r"(traces?|spans?|requests?) (that )?(is|are) (not )?kept": "sampled, not sampled",
    r"kept traces": "sampled traces",
    r"who (is|was) told|nobody is told|tells? of": "notify, notification",
    r"(client|caller)s? (that )?(goes|go|went) away": "the client disconnects",
    r"(allowed|needed) are": "must be, requires",
    r"came instead|what came of (it|each)": "expected ..., got ...; results",
    r"no route takes|path that never was": "unknown path, route not found",
    r"without signing in|whoever may look": "unauthenticated, read-only",
    r"what was done to": "fault injection",
    r"[Tt]hese take|[Bb]oth take|[Ii]t takes make": "requires, you need",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_contains_no_forbidden_phrase(page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    found = {
        match[0]: terms
        for pattern, terms in FORBIDDEN.items()
        if (match := re.search(rf"\b({pattern})\b", text))
    }
    assert found == {}
