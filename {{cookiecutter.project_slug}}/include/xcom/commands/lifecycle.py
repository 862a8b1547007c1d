"""``lifecycle``: the rule by which the bucket itself deletes old payloads.

Of all rules of a bucket one is ours: the deletion by age alone of what lies below this deployment's
prefix. Every other rule stays as it is, but may delete payloads as well, so the age that is shown is
the least of all rules. The change is refused if somebody else changed the bucket meanwhile
(``ifMetagenerationMatch``).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

from ..errors import StoreUnavailableError
from ..settings import Settings, load_settings

__all__ = ["Bucket", "age_of", "as_command", "covers_all", "is_ours", "run_lifecycle", "with_age"]

# With one of these a rule never meets a payload: payloads have no custom time, and a payload that no
# other version replaced is live.
_OF_OTHERS = (
    "customTimeBefore",
    "daysSinceCustomTime",
    "daysSinceNoncurrentTime",
    "noncurrentTimeBefore",
)
_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"


class Bucket:
    """The metadata of the deployment's bucket, over the JSON API.

    Args:
        settings: Name ``bucket``, which is no directory.
        is_changing: Asks for a token that may change the bucket, where tokens have scopes.

    Raises:
        StoreUnavailableError: The bucket is a directory.
    """

    def __init__(self, settings: Settings, *, is_changing: bool = False) -> None:
        from ..stores.bucket import GCSStore

        if settings.bucket.startswith("file://"):
            raise StoreUnavailableError(
                f"[gcs_xcom] bucket is the directory {settings.bucket}: lifecycle rules are for buckets. "
                "Use the sweep, or delete old files with find.",
                uri=settings.bucket,
            )
        quick = replace(settings, timeout_seconds=min(settings.timeout_seconds, 30))
        self._store = GCSStore(settings.bucket, quick, scope=_SCOPE if is_changing else "")

    def read(self) -> dict[str, Any]:
        """Return the bucket resource.

        Raises:
            StoreUnavailableError: It does not exist, may not be read, or did not answer.
        """
        return self._store.bucket_metadata()

    def set_rules(self, rules: list[dict[str, Any]], metageneration: str) -> dict[str, Any]:
        """Replace the bucket's lifecycle rules; return the bucket resource as it is then.

        Raises:
            StoreUnavailableError: The bucket was changed since it was read, or may not be changed.
        """
        return self._store.update_bucket({"lifecycle": {"rule": rules}}, metageneration)


def is_ours(rule: dict[str, Any], prefix: str) -> bool:
    """Whether a rule deletes by age alone what lies below ``prefix`` (or everything, for none)."""
    condition = dict(rule.get("condition", {}))
    age = condition.pop("age", None)
    wanted = {"matchesPrefix": [f"{prefix}/"]} if prefix else {}
    return rule.get("action", {}).get("type") == "Delete" and age is not None and condition == wanted


def age_of(rule: dict[str, Any], prefix: str) -> int | None:
    """Return the age in days at which a rule deletes payloads below ``prefix``, if only some of them.

    None for a rule that deletes none. See https://cloud.google.com/storage/docs/lifecycle.
    """
    condition = rule.get("condition", {})
    below = f"{prefix}/" if prefix else ""
    named = condition.get("matchesPrefix") or [""]
    if (
        rule.get("action", {}).get("type") != "Delete"
        or condition.get("isLive") is False
        or condition.get("numNewerVersions")
        or any(name in condition for name in _OF_OTHERS)
        or not any(below.startswith(name) or name.startswith(below) for name in named)
        # With a day of the calendar it deletes what was there before, and nothing that comes.
        or (condition.get("createdBefore") and "age" not in condition)
    ):
        return None
    return int(condition.get("age", 0))


def covers_all(rule: dict[str, Any], prefix: str) -> bool:
    """Whether a rule deletes every payload below ``prefix`` once it is old enough."""
    condition = rule.get("condition", {})
    below = f"{prefix}/" if prefix else ""
    return (
        age_of(rule, prefix) is not None
        and not condition.keys() & {"createdBefore", "matchesStorageClass", "matchesSuffix"}
        and any(below.startswith(name) for name in condition.get("matchesPrefix") or [""])
    )


def with_age(rules: list[dict[str, Any]], prefix: str, age_days: int) -> list[dict[str, Any]]:
    """Return the rules with ours set to an age; all others unchanged and in their order."""
    condition: dict[str, Any] = {"age": age_days}
    if prefix:
        condition["matchesPrefix"] = [f"{prefix}/"]
    ours = {"action": {"type": "Delete"}, "condition": condition}
    places = [place for place, rule in enumerate(rules) if is_ours(rule, prefix)]
    if not places:
        return [*rules, ours]
    return [
        ours if place == places[0] else rule
        for place, rule in enumerate(rules)
        if place == places[0] or place not in places
    ]


def as_command(bucket: str, rules: list[dict[str, Any]]) -> str:
    """Return the shell lines that set the same rules with gcloud."""
    text = shlex.quote(json.dumps({"rule": rules}))
    return (
        f"printf '%s' {text} > lifecycle.json\n"
        f"gcloud storage buckets update gs://{bucket} --lifecycle-file=lifecycle.json"
    )


def run_lifecycle(age_days: int | None, *, is_json: bool) -> int:
    """Show the rules, or set ours to an age; print them and the gcloud command; return the exit code."""
    settings = load_settings()
    bucket = Bucket(settings, is_changing=age_days is not None)
    found = bucket.read()
    rules = list(found.get("lifecycle", {}).get("rule", []))
    if age_days is not None:
        rules = with_age(rules, settings.prefix, age_days)
        found = bucket.set_rules(rules, str(found.get("metageneration", "")))
        kept = list(found.get("lifecycle", {}).get("rule", []))
        if kept != rules:
            raise StoreUnavailableError(
                f"gs://{settings.bucket} answered without an error and has the rules {json.dumps(kept)} now: the "
                "server does not keep lifecycle rules (an emulator?)",
                uri=f"gs://{settings.bucket}",
            )
    ages = [age for rule in rules if (age := age_of(rule, settings.prefix)) is not None]
    command = as_command(settings.bucket, rules)
    if is_json:
        print(
            json.dumps(
                {
                    "bucket": settings.bucket,
                    "age_days": min(ages, default=None),
                    "rules": rules,
                    "command": command,
                },
                indent=2,
            )
        )
        return 0
    what = f"objects below {settings.root}"
    whole = [age_of(rule, settings.prefix) for rule in rules if covers_all(rule, settings.prefix)]
    if ages and min(ages) in whole:
        print(f"{what} are deleted at an age of {min(ages)} days")
    elif ages:
        print(f"some {what} are deleted at an age of {min(ages)} days")
    else:
        print(f"no rule deletes {what}")
    others = [rule for rule in rules if not is_ours(rule, settings.prefix)]
    if others:
        print(f"other rules of the bucket: {len(others)}")
        for rule in others:
            days = age_of(rule, settings.prefix)
            print(f"  {json.dumps(rule)}" + ("" if days is None else f"  deletes payloads at {days} days"))
    if rules:
        print("\nThe same with gcloud:\n")
        print(command)
    else:
        print("Set one with: python -m include.xcom lifecycle set --age-days 90")
    return 0
