"""Explain what Cloud Storage refuses, and how to fix it.

A 403 has many causes, and a role on the bucket fixes only one of them. The server's own words tell
them apart: the message, ``error.errors[].reason``, and ``error.details``. Unknown words are shown as they
are, without a guess.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from ..errors import PayloadMissingError, StoreUnavailableError, shortened
from .transport import Answer, Damaged, reason

__all__ = ["Request", "is_policy", "refuse"]


class Request(NamedTuple):
    """What was asked of the server.

    Attributes:
        verb: "store", "read".
        uri: The object, or the bucket.
        permission: What it needs, ``storage.objects.get``.
        bucket: Name.
        conn_id: Airflow connection whose credentials were used.
    """

    verb: str
    uri: str
    permission: str
    bucket: str
    conn_id: str


class _Known(NamedTuple):
    statuses: set[int]
    words: str
    means: str
    remedy: str


# The first that matches counts. Seen in public reports (the repository and the issue), or documented at
# https://cloud.google.com/storage/docs/json_api/v1/status-codes.
_KNOWN = [
    _Known(  # googleapis/google-cloud-python#4674
        {400, 403},
        r"requester pays|userproject(missing|invalid|inconsistent)",
        "gs://{bucket} bills the requester (Requester Pays), and the request names no project to bill",
        "Set quota_project_id in the extra of connection {conn_id!r}, or turn Requester Pays off: gcloud "
        "storage buckets update gs://{bucket} --no-requester-pays",
    ),
    _Known(  # googleapis/google-cloud-ruby#6456
        {403},
        r"serviceusage\.services\.use|userprojectaccessdenied|user_project_denied",
        "The account may not bill requests to the quota project",
        "Grant it roles/serviceusage.serviceUsageConsumer on that project, or remove quota_project_id from "
        "connection {conn_id!r}",
    ),
    _Known(  # cloudquery/cloudquery#1062, broadinstitute/gatk#9053
        {403},
        r"vpc_?service_?controls|security_policy_violated|prohibited by organization's policy",
        "A VPC Service Controls perimeter blocks this request; no role on the bucket changes that",
        "Give the unique identifier in the message to the perimeter's administrators: they find the violation "
        "in the audit log, and can add an ingress or egress rule. Or run the tasks inside the perimeter",
    ),
    _Known(  # googleapis/nodejs-storage#1254
        {400, 403},
        r"cloud kms|cloudkms|kms key",
        "The bucket's encryption key (Cloud KMS) cannot be used",
        "Its version must be enabled, and Cloud Storage's service agent needs "
        "roles/cloudkms.cryptoKeyEncrypterDecrypter: gcloud storage service-agent --project=PROJECT_OF_THE_BUCKET "
        "--authorize-cmek=\"$(gcloud storage buckets describe gs://{bucket} --format='value(default_kms_key)')\"",
    ),
    _Known(  # googleapis/google-cloud-cpp#7334
        {403},
        r"scope\(s\) are not authorized|insufficient authentication scopes|access_token_scope_insufficient",
        "The machine's access scopes do not include Cloud Storage; no role on the bucket changes that",
        "Give the VM or node pool the scope cloud-platform (gcloud compute instances set-service-account "
        "... --scopes=cloud-platform), use Workload Identity, or correct `scope` in connection {conn_id!r}",
    ),
    _Known(  # googleapis/python-storage#1456, hashicorp/terraform-provider-google#5209
        {403},
        r"accountdisabled|userprojectaccountproblem|billing account|configured billing|billing (is )?disabled",
        "Billing is disabled for the project of gs://{bucket}",
        "Link an open billing account: gcloud billing projects link PROJECT --billing-account=ACCOUNT",
    ),
    _Known(  # treeverse/lakeFS#1339
        {403},
        r"retentionpolicynotmet|retention policy|object retention",
        "A retention policy of gs://{bucket} keeps objects this young from being deleted or replaced",
        "XComs need none: gcloud storage buckets update gs://{bucket} --clear-retention-period. "
        "Otherwise let a lifecycle rule delete old objects",
    ),
    _Known(  # googleapis/google-cloud-rust#4046; the reason is just "forbidden"
        {403},
        r"objectunderactivehold|under active [a-z-]+ hold",
        "A hold on the object keeps it from being deleted or replaced",
        "Remove it: gcloud storage objects update {uri} --no-event-based-hold --no-temporary-hold. If the "
        "bucket sets one on each new object: gcloud storage buckets update gs://{bucket} "
        "--no-default-event-based-hold",
    ),
    _Known(  # googleapis/java-storage#1240
        {400, 403, 412},
        r"orgpolicyconstraintfailed|violates constraint",
        "An organization policy constraint forbids this request; no role on the bucket changes that",
        "Ask an administrator of the organization",
    ),
    _Known(  # cloudyr/googleCloudStorageR#5
        {403},
        r"service_disabled|accessnotconfigured|has not been used in project",
        "The Cloud Storage API is disabled in the project of the credentials",
        "Enable it: gcloud services enable storage.googleapis.com --project=PROJECT",
    ),
    _Known(
        {403},
        r"does not have .*access|permission '?storage\.[a-z.]+'? denied|insufficient ?permission",
        "{permission} is missing on gs://{bucket}",
        "Grant it, for example with: gcloud storage buckets add-iam-policy-binding gs://{bucket} "
        "--role={role} --member={member}",
    ),
    _Known(
        {401},
        "",
        "The credentials are not accepted",
        "Check connection {conn_id!r} ([gcs_xcom] conn_id)",
    ),
    _Known(
        {404},
        "",
        "gs://{bucket} does not exist",
        "Create it: gcloud storage buckets create gs://{bucket}",
    ),
    _Known(
        {413},
        "",
        "The server takes no object of this size",
        "Lower [gcs_xcom] max_payload_bytes",
    ),
]


def refuse(answer: Answer, request: Request) -> NoReturn:
    """Raise what a response that is not a success means.

    Raises:
        PayloadMissingError: 404, and it is the object that is missing.
        Damaged: The server saw another checksum than was announced.
        StoreUnavailableError: Anything else.
    """
    status, uri = answer.status, request.uri
    said = f"HTTP {status} {reason(answer)}".rstrip(" .")
    words = _words(answer, request)
    is_of_object = not request.permission.startswith("storage.buckets")
    if status == 404 and is_of_object and request.verb not in ("store", "list") and "bucket" not in words:
        raise PayloadMissingError(f"the server has no such object or generation ({said})", uri=uri)
    if status == 400 and "crc32c" in words:
        raise Damaged(f"the server received another CRC32C than was sent ({said})")
    known = next((one for one in _KNOWN if status in one.statuses and re.search(one.words, words)), None)
    # The account that the server names, and the permission.
    email = re.search(r"([^\s'\"]+@[^\s'\"]+) does not have", reason(answer))
    named = re.search(r"storage\.(?:objects|buckets)\.[a-zA-Z]+", reason(answer))
    permission = named[0] if named else request.permission
    role = "roles/storage.objectUser" if permission.startswith("storage.objects") else "roles/storage.admin"
    member = "serviceAccount:…"
    if email:
        kind = "serviceAccount" if email[1].endswith("gserviceaccount.com") else "user"
        member = f"{kind}:{email[1]}"
    if known:
        facts = {
            **request._asdict(),
            "uri": shortened(uri),
            "permission": permission,
            "role": role,
            "member": member,
        }
        advice = f"{known.means}. {known.remedy}".format(**facts)
    elif status < 400:
        target = urlsplit(answer.headers.get("location", ""))
        advice = (
            f"The server redirects to {target.scheme}://{target.netloc}{target.path}, which the storage API "
            "never does. Look for a proxy in between"
        )
    else:
        advice, said = f"{said}. The request needs {request.permission}; retrying will not help", ""
    raise StoreUnavailableError(
        f"{advice}. Could not {request.verb} {shortened(uri)}" + (f": {said}." if said else "."),
        uri=uri,
        status=status,
        permission=permission if known and "{permission}" in known.means else None,
    )


def is_policy(answer: Answer) -> bool:
    """Tell whether a 412 is about a policy of the organization, not about a condition of the request."""
    return "violates constraint" in reason(answer)


def _words(answer: Answer, request: Request) -> str:
    """Return all that the server says, in lower case, without the names, which may hold any word."""
    try:
        error = json.loads(answer.data)["error"]
        reasons = [one.get("reason", "") for one in error.get("errors", [])]
        words = " ".join([error.get("message", ""), *reasons, json.dumps(error.get("details", ""))])
    except (ValueError, KeyError, TypeError, AttributeError):
        words = reason(answer)
    name = request.uri.removeprefix(f"gs://{request.bucket}/")
    for text in (name, request.bucket):
        words = words.replace(text, "") if text else words
    return words.lower()
