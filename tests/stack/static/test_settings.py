"""Settings of the stack's programs on which a promise of the documents rests."""

import re
from typing import Any

from tests.support.template import TEMPLATE, stack_file

OBJECTIVE_DAYS = 30
# Nothing is fetched from, or sent to, the internet: https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/
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


def test_metrics_are_kept_as_long_as_the_objectives_look_back(overlay: Any) -> None:
    (flag,) = (each for each in overlay["prometheus"]["command"] if "retention" in each)
    days = re.fullmatch(
        r"--storage\.tsdb\.retention\.time=\$\{PROMETHEUS_RETENTION:-(\d+)d\}", flag
    )
    assert days
    assert int(days[1]) > OBJECTIVE_DAYS


def test_log_lines_are_really_deleted(overlay: Any) -> None:
    assert overlay["loki"]["environment"]["LOKI_RETENTION"] == "${LOKI_RETENTION:-168h}"
    assert "-config.expand-env=true" in overlay["loki"]["command"]
    loki = stack_file("loki/loki-config.yml")
    assert loki["limits_config"]["retention_period"] == "${LOKI_RETENTION}"
    assert loki["compactor"]["retention_enabled"] is True
    assert (
        loki["compactor"]["delete_request_store"]
        == loki["schema_config"]["configs"][0]["object_store"]
    )


def test_traces_are_really_deleted(overlay: Any) -> None:
    assert overlay["tempo"]["environment"]["TEMPO_RETENTION"] == "${TEMPO_RETENTION:-168h}"
    assert "-config.expand-env=true" in overlay["tempo"]["command"]
    tempo = stack_file("tempo/tempo.yml")
    plans = tempo["backend_scheduler"]["provider"]["compaction"]["compaction"]
    does = tempo["backend_worker"]["compaction"]
    assert plans["block_retention"] == does["block_retention"] == "${TEMPO_RETENTION}"


# --- Who is told, and who may look -------------------------------------------------------------


def test_the_programs_report_to_nobody_and_fetch_nothing(overlay: Any) -> None:
    assert OFFLINE.items() <= overlay["grafana"]["environment"].items()
    assert stack_file("loki/loki-config.yml")["analytics"]["reporting_enabled"] is False
    assert stack_file("tempo/tempo.yml")["usage_report"]["reporting_enabled"] is False


def test_who_does_not_sign_in_may_look_and_no_more(overlay: Any) -> None:
    grafana = overlay["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "${GRAFANA_ANONYMOUS:-true}"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert not [name for name in grafana if "ALLOW_SIGN_UP" in name or "EDITORS" in name]


# --- What the README promises ------------------------------------------------------------------


def test_links_are_named_in_the_readme_as_grafana_shows_them() -> None:
    readme = (TEMPLATE / "observability" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\*\*([^*]+)\*\*", readme)
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


def test_a_changed_dashboard_is_read_as_soon_as_the_readme_says() -> None:
    readme = (TEMPLATE / "observability" / "README.md").read_text(encoding="utf-8")
    (provider,) = stack_file("grafana/dashboards/dashboards.yml")["providers"]
    said = re.findall(r"reads a changed file within (\d+) seconds", readme)
    assert said == [str(provider["updateIntervalSeconds"])]
