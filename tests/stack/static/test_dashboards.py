"""The Grafana files are consistent: shape, layout, links, and queries in their own grammar."""

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


def test_the_dashboards_are_found() -> None:
    assert [path.stem for path in DASHBOARDS] == UIDS


# --- Shape and layout --------------------------------------------------------------------------


@each_dashboard
def test_dashboard_has_the_shape_that_grafana_reads(path: Path) -> None:
    schema = json.loads((DATA / "dashboard.schema.json").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(load(path))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@each_dashboard
def test_dashboard_is_written_in_the_one_format(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == formatted(load(path)) + "\n", "run: python -m scripts.format_dashboards"


@each_dashboard
def test_uid_is_the_file_name_and_ids_and_titles_are_unique(path: Path) -> None:
    dashboard = load(path)
    assert dashboard["uid"] == path.stem
    ids = [panel["id"] for panel in all_panels(dashboard)]
    assert len(ids) == len(set(ids))
    kinds_and_titles = [(panel["type"], panel["title"]) for panel in all_panels(dashboard)]
    assert len(kinds_and_titles) == len(set(kinds_and_titles))


@each_dashboard
def test_panels_lie_inside_the_grid_and_do_not_overlap(path: Path) -> None:
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
def test_rows_of_panels_leave_no_gap(path: Path) -> None:
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
    """Return each objective as the rules have it."""
    (group, *_) = yaml.safe_load((RULES / "slo.yml").read_text(encoding="utf-8"))["groups"]
    return {
        rule["labels"]["slo"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in group["rules"]
        if rule["record"] == "slo:objective:ratio"
    }


def alert_factors() -> dict[str, float]:
    """Return the burn rate over each window at which an alert fires."""
    text = (RULES / "alerts.yml").read_text(encoding="utf-8")
    found = re.findall(r"expr: job:slo_burn_rate:ratio_rate(\w+) > ([\d.]+)", text)
    return {window: float(factor) for window, factor in found}


def allowed(panel: Json) -> dict[str, set[float]]:
    """Return the thresholds that a panel may have, by unit."""
    slos = set(re.findall(r'slo="(\w+)"', json.dumps(panel).replace("\\", ""))) or {"availability"}
    shares = {share for slo in slos for share in (objectives()[slo], 1 - objectives()[slo])}
    shares |= {0} if "budget left" in panel["title"] else set()
    (seconds,) = set(re.findall(r'le="([\d.]+)"', (RULES / "slo.yml").read_text("utf-8")))
    return {
        "percentunit": {round(share, 6) for share in shares},
        "s": {float(seconds)},
        "suffix:x": {1, *alert_factors().values()},
    }


@each_dashboard
def test_thresholds_are_the_objectives(path: Path) -> None:
    wrong = [
        (panel["title"], unit, value)
        for panel in panels(load(path))
        for unit, value in _thresholds(panel)
        if unit in allowed(panel) and value not in allowed(panel)[unit]
    ]
    assert wrong == []


def test_burn_rates_turn_red_where_their_alert_fires() -> None:
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
    """Return the unit and value of each threshold of a panel, overrides included."""
    config = panel["fieldConfig"]
    usual = config["defaults"]
    overrides = [{p["id"]: p["value"] for p in o["properties"]} for o in config["overrides"]]
    return [
        (field.get("unit", usual.get("unit", "")), step["value"])
        for field in [usual, *overrides]
        for step in field.get("thresholds", {}).get("steps", [])
        if step["value"] is not None
    ]


# --- Links -------------------------------------------------------------------------------------


def test_data_sources_cannot_be_changed_and_have_their_service_as_uid_and_host() -> None:
    found = [(source["uid"], source["type"], source["url"]) for source in datasources()]
    assert found == [
        ("prometheus", "prometheus", "http://prometheus:9090"),
        ("loki", "loki", "http://loki:3100"),
        ("tempo", "tempo", "http://tempo:3200"),
    ]
    assert [source["name"] for source in datasources() if source["editable"]] == []
    assert [source["uid"] for source in datasources() if source.get("isDefault")] == ["prometheus"]


def test_every_data_source_that_is_named_exists() -> None:
    known = {(source["type"], source["uid"]) for source in datasources()}
    used = {
        (item["datasource"]["type"], item["datasource"]["uid"])
        for path in DASHBOARDS
        for item in objects(load(path))
        if "datasource" in item
    }
    assert used <= known
    linked = {item["datasourceUid"] for item in objects(datasources()) if "datasourceUid" in item}
    assert linked == {uid for _, uid in known}, "metric, trace and log lead to each other"


def test_each_dashboard_leads_to_each_other_with_its_title() -> None:
    titles = {f"/d/{path.stem}": load(path)["title"] for path in DASHBOARDS}
    links = {f"/d/{path.stem}": load(path)["links"] for path in DASHBOARDS}
    found = {(url, link["url"], link["title"]) for url, all in links.items() for link in all}
    assert found == {(one, other, titles[other]) for one, other in permutations(titles, 2)}


@each_dashboard
def test_links_in_panels_keep_the_time_and_the_variables_that_both_dashboards_have(
    path: Path,
) -> None:
    known = {other.stem: variables(load(other)) for other in DASHBOARDS}
    urls = [text for panel in panels(load(path)) for text in strings(panel) if "/d/" in text]
    for url in urls:
        target, _, query = url.removeprefix("/d/").partition("?")
        assert target in known
        kept = set(re.findall(r"var-(\w+)=|\$\{(\w+):queryparam\}", query))
        assert "${__url_time_range}" in query
        names = {one or other for one, other in kept}
        assert names >= known[path.stem].keys() & known[target].keys()
        assert names <= known[target].keys()


def test_a_variable_is_the_same_on_every_dashboard_that_has_it() -> None:
    found: dict[str, list[Json]] = {}
    for path in DASHBOARDS:
        for variable in load(path)["templating"]["list"]:
            shape = {key: variable[key] for key in ("label", "type") if key in variable}
            found.setdefault(variable["name"], []).append(
                shape | {"multi": variable.get("multi"), "all": variable.get("allValue")}
            )
    assert len(found["endpoint"]) == len(DASHBOARDS)
    assert all(same == [same[0]] * len(same) for same in found.values())


def test_variables_of_logs_are_labels_that_promtail_sets() -> None:
    chosen = {
        variable["query"]["label"]
        for path in DASHBOARDS
        for variable in load(path)["templating"]["list"]
        if variable.get("datasource", {}).get("type") == "loki"
    }
    assert chosen == {"service"}
    assert chosen <= LOG_LABELS


@each_dashboard
def test_columns_that_are_formatted_or_linked_exist(path: Path) -> None:
    for panel in panels(load(path)):
        if panel["type"] != "table" or panel["datasource"]["type"] != "prometheus":
            continue
        columns = set(renamed(panel).values())
        matchers = [override["matcher"] for override in panel["fieldConfig"]["overrides"]]
        used = {matcher["options"] for matcher in matchers if matcher["id"] == "byName"}
        used |= {column["displayName"] for column in panel["options"]["sortBy"]}
        used |= set(re.findall(r"\$\{__data\.fields\.(\w+)", json.dumps(panel)))
        assert used <= columns


def test_tables_of_log_lines_keep_the_column_that_links_to_the_trace() -> None:
    (source,) = (source for source in datasources() if source["type"] == "loki")
    (link,) = source["jsonData"]["derivedFields"]
    found = tables(queryType="range")
    for table in found:
        (keep,) = (step for step in table["transformations"] if step["id"] == "filterFieldsByName")
        assert re.search(keep["options"]["include"]["pattern"], link["name"])
    assert [table["title"] for table in found] == ["Failed requests"]


def test_log_lines_of_a_span_are_formatted_as_on_the_log_explorer() -> None:
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
    """Return the stages of a LogQL query that start so: `| json`, `| line_format "a | b"`."""
    found = re.findall(r"\| \w+(?:[^|`\"]|`[^`]*`|\"(?:[^\"\\]|\\.)*\")*", query)
    return [stage.strip() for stage in found if stage.startswith(kind)]


def test_provisioning_files_leave_no_dollar_sign_to_the_environment() -> None:
    for path in (DATASOURCES, PROVIDERS):
        values = strings(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert [text for text in values if "$" in text.replace("$$", "")] == []


def test_dashboards_are_loaded_from_their_folder_and_read_only() -> None:
    (provider,) = yaml.safe_load(PROVIDERS.read_text(encoding="utf-8"))["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    folder = PROVIDERS.parent.relative_to(GRAFANA)
    assert provider["options"]["path"] == f"/etc/grafana/provisioning/{folder}"


def test_rate_windows_are_reckoned_from_the_scrape_interval() -> None:
    text = (GRAFANA.parent / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (prometheus,) = (source for source in datasources() if source["uid"] == "prometheus")
    interval = yaml.safe_load(text)["global"]["scrape_interval"]
    assert prometheus["jsonData"]["timeInterval"] == interval
