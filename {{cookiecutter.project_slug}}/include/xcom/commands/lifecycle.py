"""``lifecycle``: show or set the rule by which the bucket itself deletes old payloads.

One rule of a bucket is ours: the deletion by age alone of everything below this deployment's prefix. Every
other rule stays as it is, but may delete payloads too, so the age shown is the least of all rules. A
change is refused if someone else changed the bucket meanwhile (``ifMetagenerationMatch``).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

from ..errors import StoreUnavailableError
from ..settings import Settings, load_settings
from ..stores.bucket import GCSStore

__all__ = [
    "Rule",
    "age_of",
    "as_command",
    "covers_all",
    "is_ours",
    "open_bucket",
    "run_lifecycle",
    "with_age",
]

Rule = dict[str, Any]
"""As in https://cloud.google.com/storage/docs/json_api/v1/buckets#lifecycle."""

# A rule with one of these never matches a payload: payloads have no custom time, and one that no other
# version replaced is live.
_OF_OTHERS = (
    "customTimeBefore",
    "daysSinceCustomTime",
    "daysSinceNoncurrentTime",
    "noncurrentTimeBefore",
)
_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_MOST_SECONDS = 30.0


def open_bucket(settings: Settings, *, is_changing: bool = False) -> GCSStore:
    """Return the deployment's bucket, which gives up sooner than it does for a task.

    Args:
        settings: Name of the bucket.
        is_changing: Asks for a token that may change the bucket, where tokens have scopes.

    Raises:
        StoreUnavailableError: The bucket is a directory.
    """
    if settings.bucket.startswith("file://"):
        raise StoreUnavailableError(
            f"[gcs_xcom] bucket is the directory {settings.bucket}, and lifecycle rules are for buckets. Use "
            "the sweep, or delete old files with find.",
            uri=settings.bucket,
        )
    quick = replace(settings, timeout_seconds=min(settings.timeout_seconds, _MOST_SECONDS))
    return GCSStore(settings.bucket, quick, scope=_SCOPE if is_changing else "")


def is_ours(rule: Rule, prefix: str) -> bool:
    """Tell whether a rule deletes by age alone what is below ``prefix`` (or everything, for none)."""
    condition = dict(rule.get("condition", {}))
    age = condition.pop("age", None)
    wanted = {"matchesPrefix": [f"{prefix}/"]} if prefix else {}
    return rule.get("action", {}).get("type") == "Delete" and age is not None and condition == wanted


def age_of(rule: Rule, prefix: str) -> int | None:
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
        # With a date it deletes what was there before, and nothing newer.
        or (condition.get("createdBefore") and "age" not in condition)
    ):
        return None
    return int(condition.get("age", 0))


def covers_all(rule: Rule, prefix: str) -> bool:
    """Tell whether a rule deletes every payload below ``prefix`` once it is old enough."""
    condition = rule.get("condition", {})
    below = f"{prefix}/" if prefix else ""
    return (
        age_of(rule, prefix) is not None
        and not condition.keys() & {"createdBefore", "matchesStorageClass", "matchesSuffix"}
        and any(below.startswith(name) for name in condition.get("matchesPrefix") or [""])
    )


def with_age(rules: list[Rule], prefix: str, age_days: int) -> list[Rule]:
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


def as_command(bucket: str, rules: list[Rule]) -> str:
    """Return the shell lines that set the same rules with gcloud."""
    text = shlex.quote(json.dumps({"rule": rules}))
    return (
        f"printf '%s' {text} > lifecycle.json\n"
        f"gcloud storage buckets update gs://{bucket} --lifecycle-file=lifecycle.json"
    )


def run_lifecycle(age_days: int | None, *, is_json: bool = False) -> int:
    """Show the rules, or set ours to an age; return the exit code.

    Raises:
        StoreUnavailableError: The bucket may not be read or changed, was changed meanwhile, or keeps no rules.
    """
    settings = load_settings()
    bucket = open_bucket(settings, is_changing=age_days is not None)
    found = bucket.bucket_metadata()
    rules: list[Rule] = list(found.get("lifecycle", {}).get("rule", []))
    if age_days is not None:
        rules = with_age(rules, settings.prefix, age_days)
        found = bucket.update_bucket({"lifecycle": {"rule": rules}}, str(found.get("metageneration", "")))
        kept = list(found.get("lifecycle", {}).get("rule", []))
        if kept != rules:
            raise StoreUnavailableError(
                f"gs://{settings.bucket} accepted the change, but its rules are now {json.dumps(kept)}: the "
                "server does not keep lifecycle rules (an emulator?)",
                uri=f"gs://{settings.bucket}",
            )
    ages = [age for rule in rules if (age := age_of(rule, settings.prefix)) is not None]
    command = as_command(settings.bucket, rules)
    if is_json:
        facts = {"bucket": settings.bucket, "age_days": min(ages, default=None), "rules": rules}
        print(json.dumps(facts | {"command": command}, indent=2))
    else:
        _print(settings, rules, ages, command)
    return 0


def _print(settings: Settings, rules: list[Rule], ages: list[int], command: str) -> None:
    what = f"objects below {settings.root}"
    whole = [age_of(rule, settings.prefix) for rule in rules if covers_all(rule, settings.prefix)]
    if not ages:
        print(f"no rule deletes {what}")
    else:
        print(f"{'' if min(ages) in whole else 'some '}{what} are deleted at an age of {min(ages)} days")
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
