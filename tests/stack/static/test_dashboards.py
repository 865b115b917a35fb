"""The Grafana files: schema, layout, thresholds, links and provisioning."""

import json
import re
from itertools import combinations, permutations
from pathlib import Path

import jsonschema
import yaml

from scripts.format_dashboards import DASHBOARDS, formatted
from tests.support.dashboards import (
    DATASOURCES,
    GRAFANA,
    LOG_LABELS,
    PROVIDERS,
    Json,
    all_panels,
    datasources,
    each_dashboard,
    load,
    objects,
    panels,
    renamed,
    strings,
    tables,
    unescaped,
    variables,
)
from tests.support.template import DATA

RULES = GRAFANA.parent / "prometheus" / "rules"
COLUMNS = 24
UIDS = ["backend-service", "log-explorer", "slo-overview", "trace-explorer"]


def test_all_dashboards_are_found() -> None:
    assert [path.stem for path in DASHBOARDS] == UIDS


# --- Shape and layout --------------------------------------------------------------------------


@each_dashboard
def test_dashboard_conforms_to_its_schema(path: Path) -> None:
    schema = json.loads((DATA / "dashboard.schema.json").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(load(path))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@each_dashboard
def test_dashboard_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == formatted(load(path)) + "\n", "run: python -m scripts.format_dashboards"


@each_dashboard
def test_uid_is_the_file_name_and_panels_are_unique(path: Path) -> None:
    dashboard = load(path)
    assert dashboard["uid"] == path.stem
    ids = [panel["id"] for panel in all_panels(dashboard)]
    assert len(ids) == len(set(ids))
    kinds_and_titles = [(panel["type"], panel["title"]) for panel in all_panels(dashboard)]
    assert len(kinds_and_titles) == len(set(kinds_and_titles))


@each_dashboard
def test_panels_are_inside_the_grid_and_do_not_overlap(path: Path) -> None:
    panels = {panel["title"]: panel["gridPos"] for panel in load(path)["panels"]}
    outside = [title for title, box in panels.items() if box["x"] + box["w"] > COLUMNS]
    assert outside == []
    overlapping = [
        (one, other)
        for (one, a), (other, b) in combinations(panels.items(), 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]
    assert overlapping == []


@each_dashboard
def test_panels_leave_no_gaps(path: Path) -> None:
    boxes = [panel["gridPos"] for panel in load(path)["panels"]]
    cells = {
        (x, y)
        for box in boxes
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    }
    height = max(box["y"] + box["h"] for box in boxes)
    assert len(cells) == COLUMNS * height


# --- Thresholds --------------------------------------------------------------------------------


def objectives() -> dict[str, float]:
    """Return the objectives from the rules."""
    (group, *_) = yaml.safe_load((RULES / "slo.yml").read_text(encoding="utf-8"))["groups"]
    return {
        rule["labels"]["slo"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in group["rules"]
        if rule["record"] == "slo:objective:ratio"
    }


def alert_factors() -> dict[str, float]:
    """Return the burn rate at which the alert of each window fires."""
    text = (RULES / "alerts.yml").read_text(encoding="utf-8")
    # expr: job:slo_burn_rate:ratio_rate1h > 14.4
    found = re.findall(r"expr: job:slo_burn_rate:ratio_rate(\w+) > ([\d.]+)", text)
    return {window: float(factor) for window, factor in found}


def allowed_thresholds(panel: Json) -> dict[str, set[float]]:
    """Return the allowed thresholds of a panel, by unit."""
    slos = set(re.findall(r'slo="(\w+)"', json.dumps(panel).replace("\\", ""))) or {"availability"}
    ratios = {ratio for slo in slos for ratio in (objectives()[slo], 1 - objectives()[slo])}
    ratios |= {0} if "budget left" in panel["title"] else set()
    (seconds,) = set(re.findall(r'le="([\d.]+)"', (RULES / "slo.yml").read_text("utf-8")))
    return {
        "percentunit": {round(ratio, 6) for ratio in ratios},
        "s": {float(seconds)},
        "suffix:x": {1, *alert_factors().values()},
    }


@each_dashboard
def test_thresholds_are_the_objectives(path: Path) -> None:
    wrong = [
        (panel["title"], unit, value)
        for panel in panels(load(path))
        for unit, value in _thresholds(panel)
        if unit in allowed_thresholds(panel) and value not in allowed_thresholds(panel)[unit]
    ]
    assert wrong == []


def test_burn_rates_turn_red_at_the_threshold_of_their_alert() -> None:
    (path,) = (path for path in DASHBOARDS if path.stem == "slo-overview")
    shown = [panel for panel in panels(load(path)) if panel["title"].endswith("burn rate now")]
    for panel in shown:
        red = {
            override["matcher"]["options"]: override["properties"][0]["value"]["steps"][-1]["value"]
            for override in panel["fieldConfig"]["overrides"]
        }
        assert red == alert_factors()
        assert {target["legendFormat"] for target in panel["targets"]} == red.keys()
    assert len(shown) == len(objectives())


def _thresholds(panel: Json) -> list[tuple[str, float]]:
    """Return the unit and value of each threshold of a panel, including its overrides."""
    config = panel["fieldConfig"]
    defaults = config["defaults"]
    overrides = [{p["id"]: p["value"] for p in o["properties"]} for o in config["overrides"]]
    return [
        (field.get("unit", defaults.get("unit", "")), step["value"])
        for field in [defaults, *overrides]
        for step in field.get("thresholds", {}).get("steps", [])
        if step["value"] is not None
    ]


# --- Links -------------------------------------------------------------------------------------


def test_data_sources_are_read_only_and_have_their_service_as_uid_and_host() -> None:
    found = [(source["uid"], source["type"], source["url"]) for source in datasources()]
    assert found == [
        ("prometheus", "prometheus", "http://prometheus:9090"),
        ("loki", "loki", "http://loki:3100"),
        ("tempo", "tempo", "http://tempo:3200"),
    ]
    assert [source["name"] for source in datasources() if source["editable"]] == []
    assert [source["uid"] for source in datasources() if source.get("isDefault")] == ["prometheus"]


def test_referenced_data_sources_exist() -> None:
    known = {(source["type"], source["uid"]) for source in datasources()}
    used = {
        (item["datasource"]["type"], item["datasource"]["uid"])
        for path in DASHBOARDS
        for item in objects(load(path))
        if "datasource" in item
    }
    assert used <= known
    linked = {item["datasourceUid"] for item in objects(datasources()) if "datasourceUid" in item}
    assert linked == {uid for _, uid in known}, "each data source must be linked"


def test_each_dashboard_links_to_all_others_by_their_titles() -> None:
    titles = {f"/d/{path.stem}": load(path)["title"] for path in DASHBOARDS}
    links = {f"/d/{path.stem}": load(path)["links"] for path in DASHBOARDS}
    found = {(url, link["url"], link["title"]) for url, all in links.items() for link in all}
    assert found == {(one, other, titles[other]) for one, other in permutations(titles, 2)}


@each_dashboard
def test_links_of_panels_keep_the_time_range_and_shared_variables(
    path: Path,
) -> None:
    known = {other.stem: variables(load(other)) for other in DASHBOARDS}
    urls = [text for panel in panels(load(path)) for text in strings(panel) if "/d/" in text]
    for url in urls:
        target, _, query = url.removeprefix("/d/").partition("?")
        assert target in known
        # var-endpoint=${__data.fields.Endpoint} or ${endpoint:queryparam}
        passed = set(re.findall(r"var-(\w+)=|\$\{(\w+):queryparam\}", query))
        assert "${__url_time_range}" in query
        names = {one or other for one, other in passed}
        assert names >= known[path.stem].keys() & known[target].keys()
        assert names <= known[target].keys()


def test_variables_are_the_same_on_all_dashboards() -> None:
    found: dict[str, list[Json]] = {}
    for path in DASHBOARDS:
        for variable in load(path)["templating"]["list"]:
            settings = {key: variable[key] for key in ("label", "type") if key in variable}
            found.setdefault(variable["name"], []).append(
                settings | {"multi": variable.get("multi"), "all": variable.get("allValue")}
            )
    assert len(found["endpoint"]) == len(DASHBOARDS)
    assert all(same == [same[0]] * len(same) for same in found.values())


def test_log_variables_are_labels_that_promtail_sets() -> None:
    used = {
        variable["query"]["label"]
        for path in DASHBOARDS
        for variable in load(path)["templating"]["list"]
        if variable.get("datasource", {}).get("type") == "loki"
    }
    assert used == {"service"}
    assert used <= LOG_LABELS


@each_dashboard
def test_columns_with_formats_or_links_exist(path: Path) -> None:
    for panel in panels(load(path)):
        if panel["type"] != "table" or panel["datasource"]["type"] != "prometheus":
            continue
        columns = set(renamed(panel).values())
        matchers = [override["matcher"] for override in panel["fieldConfig"]["overrides"]]
        used = {matcher["options"] for matcher in matchers if matcher["id"] == "byName"}
        used |= {column["displayName"] for column in panel["options"]["sortBy"]}
        # ${__data.fields.Endpoint:percentencode}
        used |= set(re.findall(r"\$\{__data\.fields\.(\w+)", json.dumps(panel)))
        assert used <= columns


def test_tables_of_log_lines_keep_the_link_to_the_trace() -> None:
    (source,) = (source for source in datasources() if source["type"] == "loki")
    (link,) = source["jsonData"]["derivedFields"]
    found = tables(queryType="range")
    for table in found:
        (keep,) = (step for step in table["transformations"] if step["id"] == "filterFieldsByName")
        assert re.search(keep["options"]["include"]["pattern"], link["name"])
    assert [table["title"] for table in found] == ["Failed requests"]


def test_log_lines_of_a_span_are_formatted_as_in_the_log_explorer() -> None:
    (tempo,) = (source for source in datasources() if source["type"] == "tempo")
    query = unescaped(tempo["jsonData"]["tracesToLogsV2"]["query"])
    (shown,) = (
        panel["targets"][0]["expr"]
        for path in DASHBOARDS
        for panel in panels(load(path))
        if panel["title"] == "Log lines"
    )
    for stage in ("| json", "| drop ", "| line_format "):
        assert _stages(stage, query) == _stages(stage, shown) != []


def _stages(kind: str, query: str) -> list[str]:
    """Return the stages of a LogQL query that start with ``kind``."""
    # `| json` or `| line_format "a | b"`
    found = re.findall(r"\| \w+(?:[^|`\"]|`[^`]*`|\"(?:[^\"\\]|\\.)*\")*", query)
    return [stage.strip() for stage in found if stage.startswith(kind)]


def test_dollar_signs_in_provisioning_files_are_escaped() -> None:
    for path in (DATASOURCES, PROVIDERS):
        values = strings(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert [text for text in values if "$" in text.replace("$$", "")] == []


def test_dashboards_are_provisioned_from_their_folder_and_read_only() -> None:
    (provider,) = yaml.safe_load(PROVIDERS.read_text(encoding="utf-8"))["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    folder = PROVIDERS.parent.relative_to(GRAFANA)
    assert provider["options"]["path"] == f"/etc/grafana/provisioning/{folder}"


def test_prometheus_data_source_has_the_scrape_interval() -> None:
    text = (GRAFANA.parent / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (prometheus,) = (source for source in datasources() if source["uid"] == "prometheus")
    interval = yaml.safe_load(text)["global"]["scrape_interval"]
    assert prometheus["jsonData"]["timeInterval"] == interval
