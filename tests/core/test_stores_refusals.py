"""What is said of the refusals of Cloud Storage; the messages are those of public reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from include.xcom.errors import PayloadMissingError, StoreUnavailableError
from include.xcom.stores.refusals import Request, refuse
from include.xcom.stores.transport import Answer, Damaged

BUCKET = "acme-xcom"
URI = f"gs://{BUCKET}/xcom/dag/run/task/-1/return_value/0.bin"
ACCOUNT = "xcom@acme-project.iam.gserviceaccount.com"


def refused(
    status: int,
    message: str,
    reason: str = "forbidden",
    *,
    uri: str = URI,
    verb: str = "store",
    permission: str = "storage.objects.create",
    details: object = None,
) -> StoreUnavailableError:
    """Return the error of a response with this body."""
    error = {"code": status, "message": message, "errors": [{"message": message, "reason": reason}]}
    if details:
        error["details"] = details
    answer = Answer(status, {"content-type": "application/json"}, json.dumps({"error": error}).encode())
    with pytest.raises(StoreUnavailableError) as caught:
        refuse(answer, Request(verb, uri, permission, BUCKET, "gcs_conn"))
    return caught.value


KNOWN: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "requester-pays": (
        (400, "Bucket is a requester pays bucket but no user project provided.", "required"),
        "gs://acme-xcom bills the requester (Requester Pays)",
        (
            "quota_project_id in the extra of connection 'gcs_conn', or turn Requester Pays off: gcloud storage buckets "
            "update gs://acme-xcom --no-requester-pays"
        ),
    ),
    "quota-project": (
        (403, f"{ACCOUNT} does not have serviceusage.services.use access to the Google Cloud project."),
        "The account may not bill requests to the quota project",
        "roles/serviceusage.serviceUsageConsumer",
    ),
    "vpc-service-controls": (
        (
            403,
            "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: 5Ah6",
            "vpcServiceControls",
        ),
        "A VPC Service Controls perimeter blocks this request",
        "Give the unique identifier in the message to the perimeter's administrators",
    ),
    "kms": (
        (
            403,
            (
                "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has "
                "been authorized to use this key."
            ),
        ),
        "The bucket's encryption key (Cloud KMS) cannot be used",
        "roles/cloudkms.cryptoKeyEncrypterDecrypter: gcloud storage service-agent",
    ),
    "kms-disabled": (
        (400, "The Cloud KMS key is disabled.", "cloudKmsDisabledKey"),
        "The bucket's encryption key (Cloud KMS) cannot be used",
        "Its version must be enabled",
    ),
    "scopes": (
        (403, "Provided scope(s) are not authorized"),
        "The machine's access scopes do not include Cloud Storage",
        "scope cloud-platform",
    ),
    "billing": (
        (403, "The billing account for the owning project is disabled in state absent", "accountDisabled"),
        "Billing is disabled for the project of gs://acme-xcom",
        "gcloud billing projects link",
    ),
    "billing-never-set-up": (
        (403, "The project to be billed has not configured billing.", "accountDisabled"),
        "Billing is disabled",
        "gcloud billing projects link",
    ),
    "retention": (
        (
            403,
            (
                "Object 'acme-xcom/xcom/d' is subject to bucket's retention policy or object retention and cannot "
                "be deleted or overwritten until 2026-12-01T00:00:00Z"
            ),
            "retentionPolicyNotMet",
        ),
        "A retention policy of gs://acme-xcom keeps objects this young",
        "gcloud storage buckets update gs://acme-xcom --clear-retention-period",
    ),
    "hold": (
        (
            403,
            (
                "Object 'acme-xcom/xcom/d' is under active Event-Based hold and cannot be deleted, overwritten or "
                "archived until hold is removed."
            ),
        ),
        "A hold on the object keeps it",
        f"gcloud storage objects update {URI} --no-event-based-hold --no-temporary-hold",
    ),
    "organization-policy": (
        (412, "Request violates constraint 'constraints/gcp.restrictNonCmekServices'", "conditionNotMet"),
        "An organization policy constraint forbids this request",
        "Ask an administrator of the organization",
    ),
    "api-off": (
        (
            403,
            "Cloud Storage JSON API has not been used in project 1 before or it is disabled.",
            "accessNotConfigured",
        ),
        "The Cloud Storage API is disabled",
        "gcloud services enable storage.googleapis.com",
    ),
    "permission": (
        (
            403,
            (
                f"{ACCOUNT} does not have storage.objects.create access to the Google Cloud Storage object. "
                "Permission 'storage.objects.create' denied on resource (or it may not exist)."
            ),
        ),
        "storage.objects.create is missing on gs://acme-xcom",
        f"--role=roles/storage.objectUser --member=serviceAccount:{ACCOUNT}",
    ),
    "permission-of-a-person": (
        (403, "ann@acme.example does not have storage.buckets.update access to the bucket."),
        "storage.buckets.update is missing on gs://acme-xcom",
        "--role=roles/storage.admin --member=user:ann@acme.example",
    ),
    "anonymous": (
        (401, "Anonymous caller does not have storage.objects.get access to the object.", "required"),
        "The credentials are not accepted",
        "Check connection 'gcs_conn'",
    ),
}


@pytest.mark.parametrize(("said", "means", "remedy"), KNOWN.values(), ids=KNOWN)
def test_refusal_is_told_with_its_remedy(said: tuple[int, str, str], means: str, remedy: str) -> None:
    """The cause comes first, then what mends it, then what was asked and the server's own words."""
    error = refused(*said)

    text = str(error)
    assert text.startswith(means)
    assert remedy in text
    assert f"Could not store {URI}: HTTP {said[0]} {said[1].rstrip('.')}." in text
    assert error.status == said[0]
    assert "{" not in text
    assert ("objectUser" in text) == (means.startswith("storage.objects"))


@pytest.mark.parametrize("known", [one for one in KNOWN if one.startswith("permission")])
def test_only_a_missing_permission_is_a_fact_of_the_error(known: str) -> None:
    """Commands offer the role for it, and for nothing else."""
    assert refused(*KNOWN[known][0]).permission == KNOWN[known][1].partition(" ")[0]
    assert all(refused(*KNOWN[one][0]).permission is None for one in KNOWN if "permission" not in one)


def test_details_alone_tell_the_cause() -> None:
    """`error.details` has it where the message is short."""
    details = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
    ]

    text = str(refused(403, "Forbidden", details=details))

    assert text.startswith("The machine's access scopes do not include Cloud Storage")


@pytest.mark.parametrize("status", [400, 403, 409, 451])
def test_unknown_refusal_shows_the_server_s_words_and_guesses_nothing(status: int) -> None:
    """No role, no command; what the request needs is a fact."""
    text = str(refused(status, "The moon is in the wrong house."))

    assert text == (
        f"HTTP {status} The moon is in the wrong house. The request needs storage.objects.create; retrying "
        f"will not help. Could not store {URI}."
    )


def test_bare_403_guesses_nothing() -> None:
    """A proxy answers so, too."""
    with pytest.raises(
        StoreUnavailableError, match=r"^HTTP 403 Forbidden\. The request needs storage"
    ) as caught:
        refuse(Answer(403, {}, b""), Request("store", URI, "storage.objects.create", BUCKET, "gcs_conn"))

    assert "gcloud" not in str(caught.value)


@pytest.mark.parametrize("word", ["kms key", "billing account", "retention policy", "requester pays"])
def test_names_of_objects_are_no_words_of_the_server(word: str) -> None:
    """A Dag may have any name, and the server repeats it."""
    uri = f"gs://{BUCKET}/xcom/{word}/run/task"
    message = f"{ACCOUNT} does not have storage.objects.get access to {uri}."

    text = str(refused(403, message, uri=uri, verb="read", permission="storage.objects.get"))

    assert text.startswith("storage.objects.get is missing")


def test_missing_object_and_missing_bucket_are_told_apart() -> None:
    """Both are a 404."""
    request = Request("read", URI, "storage.objects.get", BUCKET, "gcs_conn")
    with pytest.raises(PayloadMissingError, match="no such object or generation"):
        refuse(Answer(404, {"content-type": "text/plain"}, f"No such object: {URI}".encode()), request)
    with pytest.raises(StoreUnavailableError, match=r"gs://acme-xcom does not exist. Create it"):
        refuse(Answer(404, {"content-type": "text/plain"}, b"The specified bucket does not exist."), request)


def test_checksum_that_the_server_refuses_is_damage() -> None:
    """It is sent again, and not for long."""
    body = json.dumps({"error": {"message": 'Provided CRC32C "AAAAAA==" doesn\'t match calculated'}}).encode()
    with pytest.raises(Damaged, match="the server received another CRC32C than was sent"):
        refuse(Answer(400, {}, body), Request("store", URI, "storage.objects.create", BUCKET, "gcs_conn"))
