"""Mutate Prometheus rules, to check that promtool's tests notice each change."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

Rule = dict[str, Any]

TOKEN = re.compile(
    r"""
    (?P<matcher>\w+(=~|!=|=)"(?P<value>[^"]*)",?)                   # job="backend",
    | (?P<window>(?P<kind>\[|offset\ )(?P<duration>\d+[smhd])\]?)   # [5m] or: offset 1h
    | \bby\ \((?P<by>[\w, ]+)\)                                     # by (job, endpoint)
    | (?P<comparison>==|[<>])
    | \b(?P<word>and|or|unless)\b(?!_)
    | [a-zA-Z_:][\w:]*                                              # a metric or function
    | (?P<number>\d+(\.\d+)?)                                       # 14.4
    """,
    re.VERBOSE,
)
COMPARISONS = {">": "<", "<": ">", "==": "!="}
WORDS = {"and": "or", "or": "and", "unless": "and"}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def mutations(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield each mutation of a rule: its description and the mutated rule."""
    name = rule.get("alert") or " ".join([rule["record"], *rule.get("labels", {}).values()])
    matchers = [token for token in TOKEN.finditer(rule["expr"]) if token["matcher"]]
    for token in TOKEN.finditer(rule["expr"]):
        for replacement in _replacements(token):
            expr = rule["expr"][: token.start()] + replacement + rule["expr"][token.end() :]
            where = f"{name}: character {token.start()}"
            yield f"{where}, {token[0]} -> {replacement}", rule | {"expr": expr}
    # A matcher on both sides of a binary operator has an effect until it is removed from both.
    for matcher in {token["matcher"].rstrip(",") for token in matchers}:
        expr = re.sub(rf"{re.escape(matcher)},?", "", rule["expr"])
        yield f"{name}: {matcher} removed", rule | {"expr": expr}
    if duration := rule.get("for"):
        for other in _other_durations(duration):
            yield f"{name}: for {duration} -> {other}", rule | {"for": other}
    for label, value in rule.get("labels", {}).items():
        labels = rule["labels"] | {label: f"{value}x"}
        yield f"{name}: label {label} -> {value}x", rule | {"labels": labels}


def mutated_groups(groups: list[Rule], group: str) -> Iterator[tuple[str, list[Rule]]]:
    """Yield each mutation of one group: its description and all groups."""
    index = [each["name"] for each in groups].index(group)
    for position, rule in enumerate(groups[index]["rules"]):
        for name, changed in mutations(rule):
            result = copy.deepcopy(groups)
            result[index]["rules"][position] = changed
            yield name, result


def _replacements(token: re.Match[str]) -> list[str]:
    kinds: dict[str, Callable[[re.Match[str]], list[str]]] = {
        "matcher": _other_matchers,
        "window": _other_windows,
        "by": _other_groupings,
        "comparison": lambda found: [COMPARISONS[found[0]]],
        "word": lambda found: [WORDS[found[0]]],
        "number": _other_numbers,
    }
    for kind, replace in kinds.items():
        if token[kind] is not None:
            return replace(token)
    return []  # a metric or function


def _other_matchers(token: re.Match[str]) -> list[str]:
    return [token[0].replace(f'"{token["value"]}"', f'"{token["value"]}x"')]


def _other_durations(duration: str) -> list[str]:
    seconds = int(duration[:-1]) * SECONDS[duration[-1]]
    return [f"{seconds * 2}s", f"{seconds // 2}s"]


def _other_windows(token: re.Match[str]) -> list[str]:
    end = "]" if token["kind"] == "[" else ""
    return [f"{token['kind']}{other}{end}" for other in _other_durations(token["duration"])]


def _other_groupings(token: re.Match[str]) -> list[str]:
    labels = token["by"].split(", ")
    return [f"by ({', '.join(each for each in labels if each != label)})" for label in labels]


def _other_numbers(token: re.Match[str]) -> list[str]:
    value = float(token[0])
    return [f"{value * 1.05:g}", f"{value * 0.95:g}"] if value else ["1", "-1"]
