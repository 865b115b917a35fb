"""Limits between the service and the stores: each step accepts the maximum of the previous one."""

import logging
import re
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.template import TEMPLATE, stack_file

WIDE = "\N{GRINNING FACE}"  # 4 bytes in UTF-8, 12 in an ASCII log line
LOKI_DEFAULTS = {"max_label_names_per_series": 15, "max_structured_metadata_entries_count": 128}
EXEMPLAR_MAX = 128  # characters: https://prometheus.io/docs/specs/om/open_metrics_spec/#exemplars


def size_of(text: str) -> int:
    """Return a size of Loki, such as 16MB, in bytes. Loki uses units of 1,024."""
    number, unit = re.fullmatch(r"(\d+)([KM])B", text).groups()  # type: ignore[union-attr]
    return int(number) * {"K": 2**10, "M": 2**20}[unit]


@pytest.fixture
def error() -> BaseException:
    """Return an error whose message and traceback exceed all limits."""
    try:
        raise RuntimeError((WIDE * 100 + "\n") * 1000)
    except RuntimeError as error:
        return error


def test_attribute_limit_of_the_sdk_is_above_the_limit_that_marks_truncation(
    observability: ModuleType, overlay: Any
) -> None:
    limit = int(overlay["backend"]["environment"]["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"])
    assert limit > observability.redaction.TEXT_MAX


def test_tempo_accepts_a_batch_of_the_longest_spans(
    observability: ModuleType, overlay: Any, error: BaseException
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("tests").start_as_current_span("longest") as span:
        for name in ("url.path", "url.query", "url.full", "user_agent.original"):
            span.set_attribute(name, WIDE * 20_000)
        observability.traces.record_error(error)
    redactor = observability.redaction.Redactor()
    sent = observability.traces.redacted_span(exporter.get_finished_spans()[0], redactor)
    texts = [*sent.attributes.values(), *sent.events[0].attributes.values()]
    distributor = stack_file("tempo/tempo.yml")["distributor"]
    longest = max(len(text.encode()) for text in texts)
    assert 16_000 < longest <= distributor["max_attribute_bytes"]
    batch = int(overlay["backend"]["environment"]["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"])
    size = encode_spans([sent] * batch).ByteSize()
    grpc = distributor["receivers"]["otlp"]["protocols"]["grpc"]
    assert 4 * 2**20 < size <= grpc["max_recv_msg_size_mib"] * 2**20


def test_loki_accepts_the_longest_log_line_of_an_error(
    observability: ModuleType, error: BaseException
) -> None:
    formatter = observability.logs.JsonFormatter(observability.redaction.Redactor())
    record = logging.makeLogRecord(
        {"msg": WIDE * 20_000, "exc_info": (type(error), error, error.__traceback__)}
    )
    limits = stack_file("loki/loki-config.yml")["limits_config"]
    assert 200_000 < len(formatter.format(record)) <= size_of(limits["max_line_size"])


def test_rate_limits_of_loki_are_above_a_batch_of_promtail() -> None:
    limits = stack_file("loki/loki-config.yml")["limits_config"]
    batch = 2**20  # Promtail's default, in bytes
    assert "batchsize" not in stack_file("promtail/promtail-config.yml")["clients"][0]
    assert batch + size_of(limits["max_line_size"]) < size_of(limits["per_stream_rate_limit"])
    assert size_of(limits["per_stream_rate_limit"]) <= limits["ingestion_rate_mb"] * 2**20
    assert (
        size_of(limits["per_stream_rate_limit_burst"]) <= limits["ingestion_burst_size_mb"] * 2**20
    )


def test_log_lines_have_fewer_labels_and_metadata_than_the_limits_of_loki() -> None:
    (job,) = stack_file("promtail/promtail-config.yml")["scrape_configs"]
    text = (TEMPLATE / "observability/promtail/promtail-config.yml").read_text("utf-8")
    labels = {each["target_label"] for each in job["relabel_configs"] if "target_label" in each}
    assert len(labels | {"level"}) <= LOKI_DEFAULTS["max_label_names_per_series"]
    # structured_metadata:
    #   trace_id:
    metadata = re.findall(r"structured_metadata:\n((?: +\w+:\n)+)", text)[0].split()
    assert 0 < len(metadata) < LOKI_DEFAULTS["max_structured_metadata_entries_count"]


def test_exemplars_are_within_the_limit_of_openmetrics(observability: ModuleType) -> None:
    ids = {"trace_id": "0" * 32, "span_id": "0" * 16}
    assert len("".join([*ids, *ids.values()])) <= EXEMPLAR_MAX
