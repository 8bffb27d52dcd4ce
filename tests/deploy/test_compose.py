"""compose.yaml says what it should."""

import ipaddress
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from instafeed.imaging.process import Limits
from instafeed.settings import MIB, Settings
from instafeed.storage.queue import QUEUES
from tests.deploy.compose import COMPOSE, DEPLOY, FILE, ROOT, VALUES, Compose, MissingValueError, variables

SERVICES = COMPOSE.services
ONCE = {"migrate", "bucket"}
LASTING = sorted(set(SERVICES) - ONCE)
OURS = sorted(name for name, service in SERVICES.items() if service["image"].startswith("instafeed:"))
EXAMPLE = (DEPLOY / "example.env").read_text()


def test_it_keeps_to_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema, which has the specification's schema, is missing")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _docker_compose() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if done.returncode == 0 and int(done.stdout.strip().lstrip("v").split(".")[0]) >= 2:
                return command
    pytest.skip("docker compose is not installed")


def test_docker_compose_reads_it(tmp_path: Path) -> None:
    command = _docker_compose()
    env = tmp_path / "env"
    env.write_text("".join(f"{name}='{value}'\n" for name, value in VALUES.items()))
    done = subprocess.run(
        [*command, "--file", FILE, "--env-file", env, "config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    assert set(read["services"]) == set(SERVICES)
    # It reads the values as our tests do.
    for name in SERVICES:
        environment = read["services"][name].get("environment") or {}
        assert {key: value for key, value in environment.items() if value is not None} == COMPOSE.environment(name)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_without_a_default_is_asked_for(name: str) -> None:
    with pytest.raises(MissingValueError, match=f"^{name}$"):
        _ = Compose(VALUES | {name: ""}).document


def test_the_example_names_every_value_and_gives_no_secret() -> None:
    asked = re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE)
    assert {name for name, _ in asked} == {name for name, must in variables().items() if must} == set(VALUES)
    assert not any(value for _, value in asked)
    free = set(re.findall(r"^#(\w+)=", EXAMPLE, re.MULTILINE))
    passed_on = {name for name, value in _raw_settings().items() if value is None}
    assert free == {name for name, must in variables().items() if not must} | passed_on


def _raw_settings() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["x-settings"]
    return found


def test_no_secret_is_in_the_file() -> None:
    text = FILE.read_text()
    assert not re.search(r"^ +\w*(?:PASSWORD|KEY|AUTH|KEY_ID): *\"?[^\s\"$]", text, re.MULTILINE)
    assert not re.search(r"://[^/\s$]*:[^/\s$]+@", text)


@pytest.mark.parametrize("name", OURS)
def test_the_settings_are_known_and_taken(name: str) -> None:
    settings = Settings.from_environ(COMPOSE.environment(name))
    assert settings.environment == "production"
    optional = Compose(VALUES | {"INSTAFEED_LOG_LEVEL": "debug"})
    assert Settings.from_environ(optional.environment(name)).log_level == "debug"


def test_every_queue_is_served_once() -> None:
    served = [
        queue
        for name in OURS
        if SERVICES[name]["command"][:1] == ["worker"]
        for queue in SERVICES[name]["command"][2].split(",")
    ]
    assert sorted(served) == sorted(QUEUES)


@pytest.mark.parametrize("name", LASTING)
def test_what_runs_is_watched_and_stopped_with_patience(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_bounded_and_has_no_rights_to_spare(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    # All but one start as an ordinary user; the images of ours and of Prometheus name theirs themselves.
    assert "user" in service or name in {*OURS, "prometheus", "seaweedfs"}
    assert set(service.get("cap_add", [])) == (
        {"CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"} if name == "seaweedfs" else set()
    )


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(OURS)))
def test_its_image_is_pinned_to_a_release(name: str) -> None:
    assert re.search(r":v?\d+\.\d+", SERVICES[name]["image"])


def test_the_image_is_built_once() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["migrate"]
    assert {SERVICES[name]["image"] for name in OURS} == {"instafeed:local"}
    assert (ROOT / SERVICES["migrate"]["build"]["dockerfile"]).is_file()


def test_only_nginx_is_open_to_the_network() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"nginx": ["80:8080", "8081:8081"], "prometheus": ["127.0.0.1:9090:9090"]}
    networks = COMPOSE.document["networks"]
    assert networks["data"] == networks["photos"] == {"internal": True}
    for name in ("postgres", "valkey-feeds", "valkey-queue"):
        assert SERVICES[name]["networks"] == ["data"]
    assert SERVICES["seaweedfs"]["networks"] == ["photos"]
    assert "data" not in SERVICES["nginx"]["networks"]


def test_the_api_believes_nginx_and_nobody_outside() -> None:
    (subnet,) = COMPOSE.document["networks"]["front"]["ipam"]["config"]
    trusted = Settings.from_environ(COMPOSE.environment("api-1")).trusted_proxies
    assert trusted == (ipaddress.ip_network(subnet["subnet"]),)


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_runs_before_the_schema_and_the_bucket(name: str) -> None:
    waits = {other: how["condition"] for other, how in SERVICES[name]["depends_on"].items()}
    if name in ONCE:
        assert waits == {"postgres" if name == "migrate" else "seaweedfs": "service_healthy"}
        assert SERVICES[name]["restart"] == "no"
    else:
        assert waits["migrate"] == waits["bucket"] == "service_completed_successfully"


def test_the_apis_are_replaced_one_after_the_other() -> None:
    assert SERVICES["api-2"]["depends_on"]["api-1"] == {"condition": "service_healthy"}


def test_what_is_mounted_is_there_and_what_is_kept_is_a_volume() -> None:
    kept = set()
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source, target, *options = mount.split(":")
            if source.startswith("./"):
                assert (ROOT / source).exists()
                assert options == ["ro"]
            else:
                kept.add(source)
                assert target in {"/data", "/prometheus", "/var/lib/postgresql"}
    assert kept == set(COMPOSE.document["volumes"])


def _bytes(size: str) -> int:
    units = {"k": 1 << 10, "m": MIB, "g": 1 << 30}
    return int(size.removesuffix("b")[:-1]) * units[size.removesuffix("b")[-1]]


def _limit(service: str) -> int:
    return _bytes(SERVICES[service]["deploy"]["resources"]["limits"]["memory"])


def test_memory_suffices_for_what_is_done_with_it() -> None:
    assert _limit("media-worker") >= 2 * Limits().memory_bytes + 256 * MIB
    for name in ("feeds", "queue"):
        (most,) = re.findall(r"^maxmemory (\w+)$", (DEPLOY / f"valkey/{name}.conf").read_text(), re.MULTILINE)
        assert _bytes(most) <= _limit(f"valkey-{name}") * 0.65


def test_postgres_has_a_connection_for_everybody() -> None:
    (most,) = [int(option.split("=")[1]) for option in SERVICES["postgres"]["command"] if "max_connections" in option]
    users = [name for name in OURS if name not in ONCE]
    wanted = sum(Settings.from_environ(COMPOSE.environment(name)).database_pool_size for name in users)
    assert wanted + 20 <= most


def test_nginx_and_prometheus_name_the_services_as_they_are() -> None:
    servers = "".join((DEPLOY / f"nginx/{name}-servers.conf").read_text() for name in ("api", "photos"))
    upstreams = re.findall(r"server ([\w-]+):(\d+) ", servers)
    assert upstreams == [("api-1", "8000"), ("api-2", "8000")] * 2 + [("seaweedfs", "8333")]
    assert all(name in SERVICES for name, _ in upstreams)
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert jobs[0]["static_configs"][0]["targets"] == ["api-1:8000", "api-2:8000"]
    (workers,) = jobs[1]["dns_sd_configs"]
    assert workers["names"] == [name for name in OURS if "INSTAFEED_METRICS_PORT" in COMPOSE.environment(name)][::-1]
    assert {COMPOSE.environment(name)["INSTAFEED_METRICS_PORT"] for name in workers["names"]} == {str(workers["port"])}


def test_nginx_lets_the_largest_photo_through_and_little_more() -> None:
    text = (DEPLOY / "nginx/nginx.conf").read_text()
    limits = [_bytes(size) for size in re.findall(r"location = /v1/\S+ \{\s+client_max_body_size (\w+);", text)]
    settings = Settings.from_environ(COMPOSE.environment("api-1"))
    assert len(limits) == 2
    assert all(settings.upload_max_bytes < limit <= settings.upload_max_bytes + 2 * MIB for limit in limits)
    assert f"location /{settings.s3_bucket}/renditions/ {{" in text
