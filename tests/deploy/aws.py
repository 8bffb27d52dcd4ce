"""deploy/aws as CloudFormation reads it, applied to a stand-in of AWS that knows half of its resources."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
import yaml

from tests.deploy.compose import DEPLOY

AWS = DEPLOY / "aws"
REGION = "us-east-1"
_UNKNOWN = {"LoadBalancerFullName", "TargetGroupFullName"}
"""Attributes that the stand-in does not know."""
_ACCOUNT = "123456789012"

PARAMETERS = {
    "Size": "small",
    "Repository": "123456789012.dkr.ecr.us-east-1.amazonaws.com/instafeed",
    "NginxRepository": "123456789012.dkr.ecr.us-east-1.amazonaws.com/instafeed-nginx",
    "Tag": "2",
    "MigrationsTag": "3",
    "ApiName": "api.example.org",
    "ApiCertificate": f"arn:aws:acm:{REGION}:{_ACCOUNT}:certificate/api",
    "CdnName": "photos.example.org",
    "CdnCertificate": f"arn:aws:acm:us-east-1:{_ACCOUNT}:certificate/photos",
    "CdnPublicKey": "-----BEGIN PUBLIC KEY-----",
    "OperatorSecret": f"arn:aws:secretsmanager:{REGION}:{_ACCOUNT}:secret:operator-AbCdEf",
    "MailFrom": "instafeed <no-reply@example.org>",
    "AppUrl": "https://example.org",
    "ApnsApplication": f"arn:aws:sns:{REGION}:{_ACCOUNT}:app/APNS/instafeed",
    "AlarmAddress": "https://events.example.org/integration/1/enqueue",
}
"""What an operator must give."""


class _Loader(yaml.SafeLoader):
    """Reads `!Ref x` as `{"Ref": x}`, `!Sub x` as `{"Fn::Sub": x}`, and so on."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    match node:
        case yaml.ScalarNode():
            value = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case _:
            raise AssertionError(node)
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


@cache
def template(name: str) -> dict[str, Any]:
    """A template, its functions in their long form."""
    found: dict[str, Any] = yaml.load((AWS / f"{name}.yaml").read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return found


def templates() -> list[str]:
    """The names of all templates."""
    return sorted(path.stem for path in AWS.glob("*.yaml"))


def sizes() -> dict[str, dict[str, str]]:
    """The numbers of each size."""
    found: dict[str, dict[str, str]] = template("instafeed")["Mappings"]["Sizes"]
    return found


def _makeable(name: str) -> dict[str, Any]:
    """A template without what the stand-in does not make, and with names in place of references to it."""
    found = template(name)
    made = {logical: resource for logical, resource in found["Resources"].items() if is_made(resource["Type"])}
    missing = found["Resources"].keys() - made.keys()

    def named(given: Any) -> Any:
        match given:
            case {"Ref": logical} if logical in missing:
                return logical
            case {"Fn::GetAtt": [logical, attribute]} if logical in missing or attribute in _UNKNOWN:
                return f"{logical}.{attribute}"
            case {"Fn::Sub": text}:
                return {"Fn::Sub": re.sub(rf"\$\{{({'|'.join(missing) or '-'})\b([.\w]*)\}}", r"\1\2", text)}
            case dict():
                return {key: named(value) for key, value in given.items()}
            case list():
                return [named(value) for value in given]
        return given

    whole: dict[str, Any] = named(found | {"Resources": made})
    return whole


@dataclass
class Applied:
    """All parts, made in the order in which they need each other."""

    values: Mapping[str, str]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    parameters: dict[str, dict[str, str]] = field(default_factory=dict)

    def apply(self) -> None:
        """Make every part of the root template: what CloudFormation does with nested stacks, and its stand-in does not."""
        cloud = boto3.client("cloudformation", region_name=REGION)
        boto3.client("ecs", region_name=REGION).create_cluster(clusterName="Cluster")
        waiting = {
            name: resource["Properties"]
            for name, resource in template("instafeed")["Resources"].items()
            if resource["Type"] == "AWS::CloudFormation::Stack"
        }
        while waiting:
            name = next(name for name, given in waiting.items() if self._needs(given) <= self.outputs.keys())
            given = waiting.pop(name)
            self.parameters[name] = {key: self._value(value) for key, value in given.get("Parameters", {}).items()}
            stack = f"instafeed-{name}"
            cloud.create_stack(
                StackName=stack,
                TemplateBody=json.dumps(_makeable(given["TemplateURL"].removesuffix(".yaml"))),
                Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters[name].items()],
                Capabilities=["CAPABILITY_IAM"],
            )
            [made] = cloud.describe_stacks(StackName=stack)["Stacks"]
            assert made["StackStatus"] == "CREATE_COMPLETE", made
            self.outputs[name] = {output["OutputKey"]: output["OutputValue"] for output in made.get("Outputs", [])}

    def _needs(self, given: dict[str, Any]) -> set[str]:
        return set(re.findall(r'"Fn::GetAtt": \["(\w+)"', json.dumps(given)))

    def _value(self, value: Any) -> str:
        match value:
            case {"Ref": name}:
                default = template("instafeed")["Parameters"].get(name, {}).get("Default", name)
                return str(self.values.get(name, default))
            case {"Fn::GetAtt": [part, attribute]}:
                return self.outputs[part][attribute.removeprefix("Outputs.")]
            case {"Fn::FindInMap": [_, _, key]}:
                return sizes()[self.values["Size"]][key]
            case {"Fn::Sub": text}:
                return re.sub(r"\$\{(\w+)\}", lambda match: self.values[match[1]], text)
        return str(value)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Every container of every part's task, by `part/container`."""
        ecs = boto3.client("ecs", region_name=REGION)
        found = {}
        for arn in ecs.list_task_definitions()["taskDefinitionArns"]:
            task = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
            for container in task["containerDefinitions"]:
                found[f"{task['family'].removeprefix('instafeed-')}/{container['name']}"] = container | {"task": task}
        return found

    def policy(self, user: str) -> list[dict[str, Any]]:
        """What an IAM user may do: the statements of its one policy."""
        iam = boto3.client("iam", region_name=REGION)
        name = self.outputs["Photos"][user]
        [policy] = iam.list_user_policies(UserName=name)["PolicyNames"]
        assert iam.list_attached_user_policies(UserName=name)["AttachedPolicies"] == []
        found: list[dict[str, Any]] = iam.get_user_policy(UserName=name, PolicyName=policy)["PolicyDocument"][
            "Statement"
        ]
        return found


@contextmanager
def applied() -> Iterator[Applied]:
    """AWS, with everything applied to it."""
    from moto import mock_aws

    with mock_aws():
        asked = boto3.client("acm", region_name=REGION).request_certificate(DomainName=PARAMETERS["ApiName"])
        made = Applied(PARAMETERS | {"ApiCertificate": asked["CertificateArn"]})
        made.apply()
        yield made


def types() -> set[str]:
    """The types of all resources."""
    return {resource["Type"] for name in templates() for resource in template(name)["Resources"].values()}


def is_made(type_: str) -> bool:
    """Whether the stand-in makes resources of a type; it passes over all others."""
    from moto.cloudformation.parsing import get_model_map  # takes seconds

    return type_ in get_model_map()
