"""The alerts fire when they should, name metrics that there are, and each has its section of the runbook."""

import json
import re
import subprocess
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from instafeed import telemetry
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.deploy.compose import DEPLOY, ROOT
from tests.deploy.running import program

RULES = DEPLOY / "prometheus/alerts.yml"
TESTS = DEPLOY / "prometheus/alerts_test.yml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def promtool(*words: object, stdin: str | None = None) -> None:
    """Run promtool, and expect it to be content."""
    found = program("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([found, *map(str, words)], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """All rules, recorded ones too."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def charts() -> list[str]:
    """What Grafana's charts ask for."""
    dashboard = json.loads((DEPLOY / "grafana/instafeed.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_rules_are_valid_and_pass_their_tests() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", TESTS)


def test_each_alert_is_tested_both_ways() -> None:
    fires: set[str] = set()
    rests: set[str] = set()
    for group in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in group["alert_rule_test"]:
            (fires if case.get("exp_alerts") else rests).add(case["alertname"])
    assert fires == rests == alerts().keys()


def test_each_alert_leads_to_its_section_of_the_runbook_and_each_section_has_its_alert() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_says_of_every_secret_how_it_is_changed() -> None:
    table = RUNBOOK.partition("\n## A leaked key\n")[2].partition("\n## ")[0]
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in repr(field.annotation)]
    assert "secret_key" in secrets
    assert [name for name in secrets if f"`INSTAFEED_{name.upper()}`" not in table] == []


def test_links_of_the_runbook_lead_somewhere() -> None:
    for name, anchor in re.findall(r"\]\(([\w./-]*)#?([\w-]*)\)", RUNBOOK):
        text = (ROOT / "docs" / name).read_text() if name else RUNBOOK
        headings = re.findall(r"^##* (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors or not anchor, (name, anchor)


def test_rules_and_charts_name_metrics_and_labels_that_there_are() -> None:
    parts: dict[type, tuple[str, ...]] = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_count", "_sum")}
    labels = {
        family.name + part: {*metric._labelnames, "le", "job", "instance"}
        for metric in vars(telemetry).values()
        if type(metric) in parts
        for family in metric.describe()
        for part in parts[type(metric)]
    }
    assert labels
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for asked in [*(rule["expr"] for rule in rules()), *charts()]:
        # A colon is in the names of recorded rules.
        for name, selector in re.findall(r"\b(instafeed_\w+)\b(?!:)(?:\{([^}]*)\})?", asked):
            assert name in labels, asked
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= labels[name], asked
        assert set(re.findall(r"\binstafeed:[\w:]+", asked)) <= recorded


async def test_what_the_api_shows_is_as_prometheus_wants_it(http: httpx.AsyncClient) -> None:
    await http.get("/v1/limits")
    promtool("check", "metrics", stdin=(await http.get("/metrics")).text)


async def test_the_statements_of_the_runbook_can_be_run(res: Resources) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```$", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert blocks
    async with res.db.acquire() as connection:
        for statement in "".join(blocks).split(";\n")[:-1]:
            await connection.execute(f"explain {statement}")
