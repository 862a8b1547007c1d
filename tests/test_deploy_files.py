"""The files below deploy/ fit what they are for: Terraform's bucket, and the official Helm chart."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hcl2
import jsonschema
import pytest
import yaml
from baking import REPOSITORY, TEMPLATE_FOLDER, Baked

# What the chart's values.schema.json (version 1.22.0) says of the values that we set. The whole file is
# 480 kB; nothing else of it is known here, so an unknown name fails.
ACCOUNT = {
    "type": "object",
    "properties": {
        "serviceAccount": {
            "type": "object",
            "properties": {"annotations": {"type": "object", "additionalProperties": {"type": "string"}}},
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
CHART = {
    "type": "object",
    "properties": {
        "executor": {"type": "string"},
        "airflowVersion": {"type": "string"},
        "images": {
            "type": "object",
            "properties": {
                "airflow": {
                    "type": "object",
                    "properties": {
                        "repository": {"type": ["string", "null"]},
                        "tag": {"type": ["string", "null"]},
                    },
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
        "env": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
        },
        "workers": {
            "type": "object",
            "properties": {"celery": ACCOUNT, "kubernetes": ACCOUNT},
            "additionalProperties": False,
        },
        "triggerer": ACCOUNT,
        "apiServer": ACCOUNT,
    },
    "additionalProperties": False,
}


@pytest.fixture
def deployed(baker: Callable[..., Baked]) -> Path:
    """The folder deploy/ of a project with a bucket of another name than the default's."""
    baked = baker(gcs_bucket="acme-xcom", include_examples="false")
    assert baked.exit_code == 0, baked.said
    return baked.project / "deploy"


def plain(value: Any) -> Any:
    """Give texts without the quotes that the parser keeps, and no notes of the parser."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.strip('"') if isinstance(value, str) else value


def terraform(folder: Path) -> dict[str, Any]:
    """Parse main.tf: kind of block, then name."""
    with (folder / "terraform/main.tf").open() as file:
        parsed = plain(hcl2.load(file))
    found: dict[str, Any] = {}
    for kind, blocks in parsed.items():
        for block in blocks:
            for name, body in block.items():
                found.setdefault(kind, {}).setdefault(name, {}).update(body if isinstance(body, dict) else {})
    return found


def test_terraform_bucket_is_private_and_deletes_for_good(deployed: Path) -> None:
    """As `doctor` wants it: uniform access, no public access, no soft delete; the name is the answer."""
    found = terraform(deployed)
    bucket = found["resource"]["google_storage_bucket"]["xcom"]

    assert found["variable"]["bucket"]["default"] == "acme-xcom"
    assert bucket["name"] == "${var.bucket}"
    assert bucket["uniform_bucket_level_access"] is True
    assert bucket["public_access_prevention"] == "enforced"
    assert bucket["soft_delete_policy"] == [{"retention_duration_seconds": 0}]
    assert "force_destroy" not in bucket


def test_terraform_keeps_the_buckets_and_accounts_of_deployments_apart(deployed: Path) -> None:
    """Applied again with other names it makes another deployment's, and never in place of the first."""
    found = terraform(deployed)
    comments = (deployed / "terraform/main.tf").read_text().partition("terraform {")[0]
    example = next(line for line in comments.splitlines() if "-var bucket=" in line)

    assert found["resource"]["google_storage_bucket"]["xcom"]["lifecycle"] == [{"prevent_destroy": True}]
    assert found["resource"]["google_service_account"]["tasks"]["account_id"] == "${var.account_id}"
    assert "one terraform workspace for each deployment" in comments
    assert (
        set(re.findall(r"-var (\w+)=", example))
        == {"project", "bucket", "account_id"}
        <= set(found["variable"])
    )
    # https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/create
    for account in (found["variable"]["account_id"]["default"], example.rpartition("=")[2]):
        assert re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", account)


def test_terraform_rule_is_the_one_that_lifecycle_sets(
    deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` and `lifecycle show` recognise it, and both documents name the same age."""
    monkeypatch.syspath_prepend(str(REPOSITORY / TEMPLATE_FOLDER))
    from include.xcom.commands.lifecycle import is_ours, with_age
    from include.xcom.settings import Settings

    found = terraform(deployed)
    variables = {name: body.get("default") for name, body in found["variable"].items()}
    (rule,) = found["resource"]["google_storage_bucket"]["xcom"]["lifecycle_rule"]
    (action,), (condition,) = rule["action"], rule["condition"]

    assert set(condition) == {"age", "matches_prefix"}
    assert condition["age"] == "${var.age_days}"
    assert '["${var.prefix}/"]' in condition["matches_prefix"]
    assert variables["prefix"] == Settings("acme-xcom").prefix
    made = {
        "action": action,
        "condition": {"age": variables["age_days"], "matchesPrefix": [f"{variables['prefix']}/"]},
    }
    assert [made] == with_age([], variables["prefix"], 90)
    assert is_ours(made, variables["prefix"])
    assert "lifecycle set --age-days 90" in (REPOSITORY / "docs/retention.md").read_text()


def test_terraform_grants_objects_of_one_bucket_and_nothing_else(deployed: Path) -> None:
    """One role on the bucket; the other only lets Kubernetes accounts act as the account."""
    resources = terraform(deployed)["resource"]
    roles = {
        (kind, body["role"])
        for kind, named in resources.items()
        for body in named.values()
        if kind.endswith(("_member", "_binding", "_policy"))
    }

    assert roles == {
        ("google_storage_bucket_iam_member", "roles/storage.objectUser"),
        ("google_service_account_iam_member", "roles/iam.workloadIdentityUser"),
    }


def test_helm_values_are_of_the_charts_schema(deployed: Path) -> None:
    """Each name exists in the chart and has the right type."""
    values = yaml.safe_load((deployed / "helm/values.yaml").read_text())

    jsonschema.validate(values, CHART)
    assert jsonschema.Draft7Validator(CHART).is_valid({"worker": {}}) is False


def test_helm_values_name_backend_bucket_and_account(deployed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are those that the code knows; image and Airflow are of one version."""
    monkeypatch.syspath_prepend(str(REPOSITORY / TEMPLATE_FOLDER))
    from include.xcom.commands.project import BACKEND, STATE_BACKEND, STATE_VARIABLE

    values = yaml.safe_load((deployed / "helm/values.yaml").read_text())
    environment = {entry["name"]: entry["value"] for entry in values["env"]}
    image = re.search(r"^FROM apache/airflow:(\S+)$", (deployed / "helm/Dockerfile").read_text(), re.M)
    account = terraform(deployed)["variable"]["account_id"]["default"]

    assert environment["AIRFLOW__CORE__XCOM_BACKEND"] == BACKEND
    assert environment[STATE_VARIABLE] == STATE_BACKEND
    assert environment["AIRFLOW__GCS_XCOM__BUCKET"] == "acme-xcom"
    assert environment["PYTHONPATH"] == "/opt/airflow"
    assert image
    assert image.group(1) == values["airflowVersion"]
    for part in (*values["workers"].values(), values["triggerer"], values["apiServer"]):
        annotations = part["serviceAccount"]["annotations"]
        assert annotations["iam.gke.io/gcp-service-account"].startswith(f"{account}@")


# Names of values of the chart astronomer/astro-remote-execution-agent, from Astronomer's chart reference and
# its guides (November 2026). The chart itself is not public: an unknown name fails.
AGENT_ACCOUNT = {
    "type": "object",
    "properties": {"create": {"type": "boolean"}, "name": {"type": "string"}},
    "additionalProperties": False,
}
AGENT_CHART = {
    "type": "object",
    "properties": {
        "image": {"type": "string"},
        "xcomBackend": {"type": "string"},
        "stateStoreBackend": {"type": "string"},
        "serviceAccount": {
            "type": "object",
            "properties": dict.fromkeys(("workers", "dagProcessor", "triggerer", "sentinel"), AGENT_ACCOUNT),
            "additionalProperties": False,
        },
        "commonEnv": CHART["properties"]["env"],  # type: ignore[index]
    },
    "additionalProperties": False,
}


def test_agents_get_both_backends_and_the_bucket(deployed: Path) -> None:
    """Without either backend an agent does not start; both classes are in the project."""
    values = yaml.safe_load((deployed / "remote-execution/values.yaml").read_text())
    jsonschema.validate(values, AGENT_CHART)
    environment = {one["name"]: one["value"] for one in values["commonEnv"]}

    assert environment["AIRFLOW__GCS_XCOM__BUCKET"] == "acme-xcom"
    for name in (values["xcomBackend"], values["stateStoreBackend"]):
        module, _, kind = name.rpartition(".")
        path = deployed.parent / f"{module.replace('.', '/')}.py"
        assert f"class {kind}(" in path.read_text()
    assert {account["name"] for account in values["serviceAccount"].values()} == {"astro-agent"}


def test_guide_for_agents_shows_the_values_file(deployed: Path) -> None:
    """Somebody who pastes from the guide gets what the project has."""
    page = (REPOSITORY / "docs/how-to/remote-execution.md").read_text()
    shown = yaml.safe_load(
        re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0].replace("BUCKET", "acme-xcom")
    )
    values = yaml.safe_load((deployed / "remote-execution/values.yaml").read_text())
    values["image"] = shown["image"]

    assert str(shown).replace("__acme-xcom", "__BUCKET") == str(values)
