"""deploy/aws: the templates are sound, and give each service what it needs and no more."""

import hashlib
import inspect
import ipaddress
import json
import re
import shutil
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiohttp import web

from instafeed import telemetry
from instafeed.cli import _parser, _upkeep
from instafeed.dev.process import Child
from instafeed.imaging.process import Limits
from instafeed.leftovers import Sweep
from instafeed.resources import Resources, open_resources
from instafeed.settings import MIB, PREFIX, Settings
from instafeed.storage.blobs import original_key
from instafeed.storage.push import mobile
from instafeed.storage.queue import QUEUES
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.deploy import aws
from tests.deploy.running import HOST, nginx_command, program
from tests.media.s3_proxy import losing_the_answer, running_s3_proxy
from tests.photos import large_jpeg
from tests.ports import free_ports
from tests.workers import all_done, running_workers

NOT_MADE = {
    "ApplicationAutoScaling::ScalableTarget",
    "ApplicationAutoScaling::ScalingPolicy",
    "CloudFront::Distribution",
    "CloudFront::KeyGroup",
    "CloudFront::OriginAccessControl",
    "CloudFront::PublicKey",
    "CloudFront::ResponseHeadersPolicy",
    "CloudWatch::Alarm",
    "ElastiCache::ParameterGroup",
    "ElastiCache::ReplicationGroup",
    "ElastiCache::SubnetGroup",
    "RDS::DBCluster",
    "RDS::DBClusterParameterGroup",
    "S3::BucketPolicy",
    "Scheduler::Schedule",
    "SecretsManager::Secret",
}
"""What the stand-in passes over: of these only cfn-lint says that they are right."""

SECRETS = {
    "SECRET_KEY": "a secret key that is long enough for production",
    "DATABASE_URL": "postgresql://instafeed:password@database:5432/instafeed?sslmode=require",
    "REDIS_URL": "rediss://:password@feeds:6379/0",
    "QUEUE_REDIS_URL": "rediss://:password@queue:6379/0",
    "S3_ACCESS_KEY": "id",
    "S3_SECRET_KEY": "secret",
    "MAIL_URL": "smtp+starttls://user:password@email-smtp.us-east-1.amazonaws.com:587",
    "WEB_PUSH_KEY": urlsafe_b64encode(bytes(31) + b"\1").decode(),
    "SENTRY_DSN": "",
}
PARTS = ["Api/api-1", "Api/api-2", "Fanout/worker", "Bulk/worker", "Media/worker", "Others/worker"]


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[aws.Applied, dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]]:
    """Everything applied; the containers of its tasks, and what its users may do."""
    pytest.importorskip("moto", reason="moto, which stands in for AWS, is not installed")
    with aws.applied() as made:
        yield made, made.containers(), {user: made.policy(user) for user in ("ApiUser", "WorkerUser")}


Cloud = tuple[aws.Applied, dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]


def test_the_linter_finds_nothing() -> None:
    linter = shutil.which("cfn-lint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("cfn-lint is not installed")
    files = [str(aws.AWS / f"{name}.yaml") for name in aws.templates()]
    done = subprocess.run([linter, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_of_it_is_made_but_for_what_the_stand_in_does_not_know(cloud: Cloud) -> None:
    made, _, _ = cloud
    assert len(made.outputs) == 10
    assert {type_ for type_ in aws.types() if not aws.is_made(type_)} == {f"AWS::{name}" for name in NOT_MADE}


def _settings(container: dict[str, Any], key: str) -> Settings:
    environ = {item["name"]: item["value"] for item in container.get("environment", []) if item}
    for secret in container["secrets"]:
        name = secret["name"].removeprefix(PREFIX)
        environ[secret["name"]] = key if name == "MEDIA_CDN_PRIVATE_KEY" else SECRETS[name]
    return Settings.from_environ(environ)


@pytest.fixture(scope="module")
def signing_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("name", PARTS)
def test_a_service_gets_the_settings_that_it_needs(cloud: Cloud, signing_key: str, name: str) -> None:
    made, containers, _ = cloud
    settings = _settings(containers[name], signing_key)
    assert settings.environment == "production"
    assert settings.s3_bucket == made.outputs["Photos"]["Bucket"]
    assert settings.media_cdn_url == "https://photos.example.org"
    assert settings.queue_redis_url is not None
    assert settings.mail_url is not None
    assert settings.app_url is not None
    assert settings.web_push_key is not None
    assert settings.sns_apns_application == made.values["ApnsApplication"]
    assert settings.sns_fcm_application is None
    if name.startswith("Api/"):
        assert settings.allowed_hosts == ("api.example.org", HOST)
        assert settings.trusted_proxies == (ipaddress.ip_network(f"{HOST}/32"),)
    else:
        assert settings.metrics_port == 9100


def test_migrations_get_what_the_settings_ask_for_and_nothing_else(cloud: Cloud, signing_key: str) -> None:
    made, containers, _ = cloud
    container = containers["Migrate/migrate"]
    _settings(container, signing_key)
    assert {secret["name"] for secret in container["secrets"]} == {
        f"{PREFIX}{name.upper()}" for name, field in Settings.model_fields.items() if field.is_required()
    }
    assert container["image"].endswith(":3")
    assert {containers[name]["image"].rpartition(":")[2] for name in PARTS} == {made.values["Tag"]}


def test_upkeep_is_a_command_of_the_task_that_is_run_by_the_clock() -> None:
    resources = aws.template("migrate")["Resources"]
    target = resources["Upkeep"]["Properties"]["Target"]
    assert target["EcsParameters"]["TaskDefinitionArn"] == {"Ref": "Task"}
    [change] = json.loads(target["Input"])["containerOverrides"]
    [container] = resources["Task"]["Properties"]["ContainerDefinitions"]
    assert change["name"] == container["Name"]
    assert _parser().parse_args(change["command"]).run is _upkeep


def test_every_queue_is_served_once_and_scaled_by_one_of_its_own(cloud: Cloud) -> None:
    made, containers, _ = cloud
    served = {
        name: containers[f"{name}/worker"]["command"][2].split(",") for name in ("Fanout", "Bulk", "Media", "Others")
    }
    assert sorted(queue for queues in served.values() for queue in queues) == sorted(QUEUES)
    assert all(made.parameters[name]["ScaledBy"] in queues for name, queues in served.items())
    assert all(float(made.parameters[n]["CalmSeconds"]) < float(made.parameters[n]["LateSeconds"]) for n in served)


def test_what_scaling_and_alarms_go_by_is_measured(cloud: Cloud) -> None:
    _, containers, _ = cloud
    [config] = [item["value"] for item in containers["Others/collector"]["environment"]]
    read = yaml.safe_load(config)
    [scrape] = read["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == [f"{HOST}:9100"]
    sent = {
        name for item in read["exporters"]["awsemf"]["metric_declarations"] for name in item["metric_name_selectors"]
    }
    assert set(scrape["metric_relabel_configs"][0]["regex"].split("|")) == sent
    gauges = (telemetry.QUEUE_AGE, telemetry.OUTBOX_DEAD)
    assert sent == {metric.name for gauge in gauges for metric in gauge.collect()}
    alarms = [
        resource["Properties"]
        for name in ("alarms", "worker")
        for resource in aws.template(name)["Resources"].values()
        if resource["Properties"].get("Namespace") == "Instafeed"
    ]
    assert {alarm["MetricName"] for alarm in alarms} == sent
    queues = [item["Value"] for alarm in alarms for item in alarm["Dimensions"] if item["Name"] == "queue"]
    assert {queue for queue in queues if queue != {"Ref": "ScaledBy"}} <= set(QUEUES)


def test_a_release_does_not_change_how_many_tasks_there_are() -> None:
    for name in ("api", "worker"):
        resources = aws.template(name)["Resources"]
        assert "DesiredCount" not in resources["Service"]["Properties"]
        assert resources["Capacity"]["Properties"]["MinCapacity"] == {"Ref": "Fewest"}


def test_only_the_balancer_is_open_to_the_world() -> None:
    groups = aws.template("network")["Resources"]
    opened = {
        name: [rule["FromPort"] for rule in group["Properties"].get("SecurityGroupIngress", []) if "CidrIp" in rule]
        for name, group in groups.items()
        if group["Type"] == "AWS::EC2::SecurityGroup"
    }
    assert {name: ports for name, ports in opened.items() if ports} == {"BalancerGroup": [443, 80]}


def test_no_task_can_call_aws_by_its_role_but_to_write_metrics() -> None:
    tasks = {
        name: resource["Properties"]
        for name in aws.templates()
        for resource in aws.template(name)["Resources"].values()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
    }
    assert tasks.keys() == {"api", "migrate", "worker"}
    assert [name for name, task in tasks.items() if "TaskRoleArn" in task] == ["worker"]
    [policy] = aws.template("worker")["Resources"]["TaskRole"]["Properties"]["Policies"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert all(action.startswith("logs:") for action in statement["Action"])


@pytest.mark.parametrize("size", sorted(aws.sizes()))
def test_there_is_room_for_everybody(cloud: Cloud, signing_key: str, size: str) -> None:
    _, containers, _ = cloud
    numbers = aws.sizes()[size]
    pool = _settings(containers["Api/api-1"], signing_key).database_pool_size
    workers = int(numbers["FanoutMost"]) * 2 + int(numbers["MediaMost"]) + int(numbers["OthersMost"])
    # RDS allows a connection for every 9,531,392 bytes, and 5,000 at most.
    gigabytes = {"small": 8, "medium": 32, "large": 256}[size]
    assert pool * (int(numbers["ApiMost"]) * 2 + workers) <= min(gigabytes * 1_000_000_000 / 9_531_392, 5000) * 0.7
    assert int(containers["Media/worker"]["task"]["memory"]) * MIB >= 2 * Limits().memory_bytes + 512 * MIB


def _actions(request: web.Request) -> Iterator[tuple[str, str]]:
    """What S3 asks leave for, and on which key; AWS, "Actions, resources, and condition keys for Amazon S3"."""
    _, bucket, key = request.path.split("/", 2) if request.path.count("/") > 1 else (*request.path.split("/"), "")
    key = re.sub(r"^test-\w+/", "", key)
    match request.method:
        case "POST" if "delete" in request.query:
            for prefix in ("originals", "renditions", "exports"):
                yield "s3:DeleteObject", f"{prefix}/x"
        case "GET" | "HEAD" if not key:
            yield ("s3:ListBucketMultipartUploads" if "uploads" in request.query else "s3:ListBucket"), ""
        case "GET" if "uploadId" in request.query:
            yield "s3:ListMultipartUploadParts", key
        case "GET" | "HEAD":
            yield "s3:GetObject", key
        case "DELETE":
            yield ("s3:AbortMultipartUpload" if "uploadId" in request.query else "s3:DeleteObject"), key
        case "PUT" | "POST":
            yield "s3:PutObject", key
            if source := request.headers.get("x-amz-copy-source"):
                yield "s3:GetObject", re.sub(rf"^/?{bucket}/(test-\w+/)?", "", source)
        case _:
            raise AssertionError(request.method)


def _recorder(seen: set[tuple[str, str]]) -> Callable[[web.Request], bool]:
    """Notes what is asked for; true of the first upload in parts that is begun."""
    begun = False

    def record(request: web.Request) -> bool:
        nonlocal begun
        seen.update((action, key.partition("/")[0]) for action, key in _actions(request))
        first = not begun and request.method == "POST" and "uploads" in request.query
        begun = begun or first
        return first

    return record


def _allowed(policy: list[dict[str, Any]], bucket: str) -> set[tuple[str, str]]:
    """Actions, and the first part of the keys that they are allowed on."""
    found = set()
    for statement in policy:
        assert statement["Effect"] == "Allow"
        if statement["Resource"] == "*":
            continue  # SNS, below
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        for prefix in ("", "originals", "renditions", "exports"):
            arn = f"arn:aws:s3:::{bucket}" + (f"/{prefix}/x" if prefix else "")
            if fnmatchcase(arn, statement["Resource"]):
                found |= {(action, prefix) for action in actions}
    return found


async def test_each_service_may_do_in_the_bucket_what_it_does_and_nothing_else(
    cloud: Cloud, fresh_settings: Settings
) -> None:
    made, _, policies = cloud
    by_api: set[tuple[str, str]] = set()
    by_workers: set[tuple[str, str]] = set()
    upstream = fresh_settings.s3_endpoint
    assert upstream is not None
    async with running_s3_proxy(upstream) as front, running_s3_proxy(upstream) as back:
        behind_api = fresh_settings.model_copy(update={"s3_endpoint": front.url, "s3_public_endpoint": front.url})
        behind_workers = fresh_settings.model_copy(update={"s3_endpoint": back.url})
        async with (
            # Of an upload that was begun, and nobody was told, they look for what is left.
            front.failing(_recorder(by_api), losing_the_answer),
            back.failing(_recorder(by_workers), losing_the_answer),
            running_workers(behind_workers),
            running_api(behind_api) as url,
            http_client(base_url=url, timeout=60) as http,
            open_resources(behind_workers) as res,
        ):
            await _live(http, res)
            await Sweep(res).whole()
            # As an export that is too long for one request does it.
            await res.blobs.begin_upload("exports/long")
            await res.blobs.abort_uploads("exports/long")
    bucket = made.outputs["Photos"]["Bucket"]
    assert by_api == _allowed(policies["ApiUser"], bucket)
    assert by_workers == _allowed(policies["WorkerUser"], bucket)


def test_workers_may_push_and_do_nothing_else_with_sns(cloud: Cloud) -> None:
    _, _, policies = cloud
    called = re.findall(r"client\.(\w+)\(|_clients\[[^]]*\]\.(\w+)\(", inspect.getsource(mobile))
    names = {"".join(word.capitalize() for word in (one or other).split("_")) for one, other in called}
    [statement] = [statement for statement in policies["WorkerUser"] if statement["Resource"] == "*"]
    assert {f"sns:{name}" for name in names} == set(statement["Action"])
    assert not any(statement["Resource"] == "*" for statement in policies["ApiUser"])


async def _live(http: httpx.AsyncClient, res: Resources) -> None:
    """All that makes the services ask S3 for something."""

    async def is_ready() -> bool:
        return (await http.get("/readyz")).is_success

    await eventually(is_ready)
    client = await Client.sign_up(http)
    post = await client.post()
    await client.published(post["id"])
    # As if its time were over.
    async with res.db.acquire() as connection:
        photos = await connection.fetch("select object_key from media")
    await res.blobs.delete(original_key(photo["object_key"]) for photo in photos)

    # In parts, with the length not told; again by its digest, which is copied; and in parts that may be sent late.
    data = large_jpeg(6 * MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), MIB):
            yield data[at : at + MIB]

    sent = await client.call("POST", "/v1/media", 201, content=pieces())
    announced = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    await client.call("POST", "/v1/posts", 201, json={"media": [{"id": sent["id"]}]})
    assert (await client.call("POST", "/v1/media/uploads", 200, json=announced))["id"] != sent["id"]
    other = large_jpeg(6 * MIB, seed=1)
    announced = {"size": len(other), "sha256": hashlib.sha256(other).hexdigest()}
    upload = await client.call("POST", "/v1/media/uploads", 201, json=announced)
    for number, at in enumerate(range(0, len(other), upload["part_size"]), 1):
        part = other[at : at + upload["part_size"]]
        await client.call("PUT", f"/v1/media/uploads/{upload['id']}/parts/{number}", 204, content=part)
    await client.call("GET", f"/v1/media/uploads/{upload['id']}")
    await client.call("POST", f"/v1/media/uploads/{upload['id']}/complete", 201)
    data3 = {"size": 6 * MIB, "sha256": hashlib.sha256(b"nothing").hexdigest()}
    given_up = await client.call("POST", "/v1/media/uploads", 201, json=data3)
    await client.call("DELETE", f"/v1/media/uploads/{given_up['id']}", 204)

    asked = await client.call("POST", "/v1/me/export", 201)

    async def exported() -> str:
        return (await client.call("GET", f"/v1/me/exports/{asked['id']}"))["url"] or ""

    async with http_client() as anybody:
        assert (await anybody.get(await eventually(exported, seconds=60))).is_success
    await client.call("DELETE", f"/v1/posts/{post['id']}", 204)
    await eventually(lambda: all_done(res), seconds=60)


def test_the_documentation_tells_the_sizes_as_they_are() -> None:
    rows = ["| | small | medium | large |", "|---|---|---|---|"]
    numbers = aws.sizes()
    names: dict[str, Callable[[dict[str, str]], str]] = {
        "PostgreSQL, each of three": lambda n: f"{n['DatabaseClass']}, {int(n['DatabaseGigabytes']):,} GB",
        "Valkey for feeds, shards of two": lambda n: f"{n['FeedsShards']} of {n['FeedsClass']}",
        "Valkey for the queue, two": lambda n: n["QueueClass"],
        "API, tasks of 2 cores": lambda n: f"{n['ApiFewest']} to {n['ApiMost']}",
        "fanout and bulk, tasks of 1 core, each": lambda n: f"{n['FanoutFewest']} to {n['FanoutMost']}",
        "media, tasks of 2 cores": lambda n: f"{n['MediaFewest']} to {n['MediaMost']}",
        "other queues, tasks of 1 core": lambda n: f"{n['OthersFewest']} to {n['OthersMost']}",
    }
    rows += [
        f"| {name} | {' | '.join(tell(numbers[size]) for size in ('small', 'medium', 'large'))} |"
        for name, tell in names.items()
    ]
    assert "\n".join(rows) in (aws.AWS.parents[1] / "docs/aws.md").read_text()


def test_nginx_believes_the_network_and_closes_last() -> None:
    network = aws.template("network")["Resources"]["Vpc"]["Properties"]["CidrBlock"]
    assert re.findall(r"set_real_ip_from (\S+);", (aws.AWS / "nginx/proxies.conf").read_text()) == [network]
    attributes = aws.template("api")["Resources"]["Balancer"]["Properties"]["LoadBalancerAttributes"]
    [idle] = [int(item["Value"]) for item in attributes if item["Key"] == "idle_timeout.timeout_seconds"]
    [keepalive] = re.findall(
        r"^    keepalive_timeout (\d+)s;", (aws.AWS.parent / "nginx/nginx.conf").read_text(), re.MULTILINE
    )
    assert idle < int(keepalive)


async def test_nginx_of_a_task_tells_the_balancer_whether_the_api_is_alive(base_url: str, tmp_path: Path) -> None:
    if program("nginx") is None:
        pytest.skip("nginx is not installed")
    steps = [
        line.split() for line in (aws.AWS / "nginx/Dockerfile").read_text().splitlines() if line.startswith("COPY")
    ]
    for _, source, _ in steps:
        for path in (
            found for part in aws.AWS.parent.glob(source) for found in ([part] if part.is_file() else part.iterdir())
        ):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    ports = dict(zip(("8080", "8081", "8090", "8092"), free_ports(4), strict=True))
    api = base_url.removeprefix("http://")
    for path in tmp_path.glob("*.conf"):
        text = re.sub(
            r"listen (?:127\.0\.0\.1:)?(80[89]\d)", lambda m: f"listen {HOST}:{ports[m[1]]}", path.read_text()
        )
        text = text.replace("127.0.0.1:8001", api).replace("127.0.0.1:8002", api).replace(" /tmp/", f" {tmp_path}/")
        path.write_text(re.sub(r"(worker_rlimit_nofile|worker_connections) \d+", r"\1 1024", text))
    with (tmp_path / "log").open("ab") as log:
        child = await Child.start(nginx_command(tmp_path / "nginx.conf"), environ={}, output=log)
    try:
        async with http_client() as http:

            async def alive() -> bool:
                assert child.running, (tmp_path / "log").read_text()
                try:
                    answer = await http.get(f"http://{HOST}:{ports['8092']}/", headers={"Host": "10.64.16.7:8092"})
                except httpx.TransportError:
                    return False
                return bool(answer.json() == {"alive": True})

            await eventually(alive)
            assert (await http.get(f"http://{HOST}:{ports['8080']}/v1/limits")).status_code in {200, 401}
            assert (await http.get(f"http://{HOST}:{ports['8092']}/metrics")).status_code == 404
    finally:
        await child.stop(signal.SIGTERM, seconds=5)
