"""Property tests of redaction and of the limit on traces sampled by callers."""

from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

HIDDEN = "hunter2s"
fuzzed = settings(deadline=None, derandomize=True, database=None, max_examples=500)


NAMES = st.sampled_from(
    ["password", "X-Api-Key", "access_token", "user[password]", "cookie", "client_secret"]
)
FORMS = st.sampled_from(
    [
        *(
            "?{}=%s&a=1",
            "{}=%s",
            "{} = %s",
            "{}: %s\n",
            "&{}+=%s",
            "{}%%3D%s",
            "q=%%22{}%%22%%3A%%22%s",
        ),
        *('"{}": "%s"', "'{}': '%s'", "('{}', '%s')", "(b'{}', b'%s')", "'{}': ['a', '%s']"),
        *(r"\"{}\": \"%s\"", '"{}": {{"a": "%s"}}', '"{}": "a\\"%s"', "{}=Bearer %s", "{}=a,%s"),
    ]
)
# Surrounding text that neither continues a name nor opens a quote or bracket.
AROUND = st.text(st.sampled_from("abc xyz 019 /?&;=:,-_.%\n\u00e9"), max_size=30)


@fuzzed
@given(before=AROUND, name=NAMES, form=FORMS, after=AROUND)
def test_value_after_a_secret_name_is_redacted(
    observability: ModuleType, before: str, name: str, form: str, after: str
) -> None:
    if "[" in name and form[0] in "\"'(\\q":
        name = "password"  # names with brackets occur only in URLs
    text = f"{before} {form.format(name) % HIDDEN} {after}"
    assert HIDDEN not in observability.Redactor().text(text)


@fuzzed
@given(st.text(), st.text())
def test_redactor_accepts_any_text(observability: ModuleType, name: str, text: str) -> None:
    redactor = observability.Redactor()
    assert isinstance(redactor.text(text), str)
    assert isinstance(redactor.text(f"?{text}"), str)
    redactor.named(name, {text: [name, text]})


@fuzzed
@given(
    per_second=st.floats(0, 20),
    waits=st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
)
def test_callers_cannot_exceed_the_sampling_limit(
    observability: ModuleType, per_second: float, waits: list[float]
) -> None:
    now, sampled = 1000.0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observability.traces, "monotonic", lambda: now)
        # The service's own sampling ratio is 0, so every sampled trace is due to its caller.
        service = ParentBased(TraceIdRatioBased(0.0), remote_parent_sampled=ALWAYS_ON)
        sampler = observability.traces.CallerLimit(service, per_second)
        for wait in waits:
            now += wait
            caller = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(caller))
            result = sampler.should_sample(context, 1, "name", SpanKind.SERVER)
            if result.decision is Decision.RECORD_AND_SAMPLE:
                sampled.append(now)
    burst = max(per_second, 1.0) if per_second else 0.0
    for start in sampled:
        for end in sampled:
            number = sum(start <= each <= end for each in sampled)
            assert number <= burst + (end - start) * per_second + 1e-6 or end < start
