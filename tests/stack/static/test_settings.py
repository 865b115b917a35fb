"""Settings of the stack that the documents rely on."""

import re
from typing import Any

from tests.support.template import TEMPLATE, stack_file

OBJECTIVE_DAYS = 30
# Grafana fetches nothing from the internet and sends nothing to it: https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/
OFFLINE = {
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
    "GF_SECURITY_DISABLE_GRAVATAR": "true",
    "GF_SNAPSHOTS_EXTERNAL_ENABLED": "false",
}


# --- Retention ---------------------------------------------------------------------------------


def test_metrics_retention_is_longer_than_the_window_of_the_objectives(overlay: Any) -> None:
    (flag,) = (each for each in overlay["prometheus"]["command"] if "retention" in each)
    # --storage.tsdb.retention.time=${PROMETHEUS_RETENTION:-35d}
    days = re.fullmatch(
        r"--storage\.tsdb\.retention\.time=\$\{PROMETHEUS_RETENTION:-(\d+)d\}", flag
    )
    assert days
    assert int(days[1]) > OBJECTIVE_DAYS


def test_log_retention_is_set_and_enforced(overlay: Any) -> None:
    assert overlay["loki"]["environment"]["LOKI_RETENTION"] == "${LOKI_RETENTION:-168h}"
    assert "-config.expand-env=true" in overlay["loki"]["command"]
    loki = stack_file("loki/loki-config.yml")
    assert loki["limits_config"]["retention_period"] == "${LOKI_RETENTION}"
    assert loki["compactor"]["retention_enabled"] is True
    assert (
        loki["compactor"]["delete_request_store"]
        == loki["schema_config"]["configs"][0]["object_store"]
    )


def test_trace_retention_is_set_and_enforced(overlay: Any) -> None:
    assert overlay["tempo"]["environment"]["TEMPO_RETENTION"] == "${TEMPO_RETENTION:-168h}"
    assert "-config.expand-env=true" in overlay["tempo"]["command"]
    tempo = stack_file("tempo/tempo.yml")
    scheduler = tempo["backend_scheduler"]["provider"]["compaction"]["compaction"]
    worker = tempo["backend_worker"]["compaction"]
    assert scheduler["block_retention"] == worker["block_retention"] == "${TEMPO_RETENTION}"


# --- Usage reporting and access ----------------------------------------------------------------


def test_usage_reporting_and_update_checks_are_disabled(overlay: Any) -> None:
    assert OFFLINE.items() <= overlay["grafana"]["environment"].items()
    assert stack_file("loki/loki-config.yml")["analytics"]["reporting_enabled"] is False
    assert stack_file("tempo/tempo.yml")["usage_report"]["reporting_enabled"] is False


def test_anonymous_users_of_grafana_are_viewers(overlay: Any) -> None:
    grafana = overlay["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "${GRAFANA_ANONYMOUS:-true}"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert not [name for name in grafana if "ALLOW_SIGN_UP" in name or "EDITORS" in name]


# --- Documents ---------------------------------------------------------------------------------


def documents() -> str:
    """Return the text of the stack's README and pages."""
    folder = TEMPLATE / "observability"
    pages = [folder / "README.md", *sorted(folder.glob("docs/*.md"))]
    assert len(pages) > 5
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def test_bold_names_in_the_documents_are_those_of_grafana() -> None:
    # **View trace**
    named = re.findall(r"\*\*([^*]+)\*\*", documents())
    assert len(named) >= 5
    dashboards = (TEMPLATE / "observability" / "grafana" / "dashboards").glob("*.json")
    shown = {stack_file(f"grafana/dashboards/{path.name}")["title"] for path in dashboards}
    for source in stack_file("grafana/datasources/datasources.yml")["datasources"]:
        links = source["jsonData"]
        shown |= {
            link["urlDisplayLabel"]
            for link in links.get("exemplarTraceIdDestinations", [])
            + links.get("derivedFields", [])
        }
        shown |= {query["name"] for query in links.get("tracesToMetrics", {}).get("queries", [])}
    assert set(named) <= shown


def test_documents_have_the_update_interval_of_the_dashboards() -> None:
    (provider,) = stack_file("grafana/dashboards/dashboards.yml")["providers"]
    documented = re.findall(r"reads a changed file within (\d+) seconds", documents())
    assert documented == [str(provider["updateIntervalSeconds"])]
