"""Which deployment may sweep a prefix.

Staging and production of one repository have the same ids of Dags, tasks, and scheduled runs. In a
prefix that both write to, "Airflow knows the Dag, and no row names the object" holds for every payload
of the other one, and no request to Airflow tells the difference. So a sweep deletes nothing before
someone has stated, with ``sweep --claim``, that this deployment alone writes below the prefix.

A claim is an object ``=deployment/{id}/{unique}.txt`` below the prefix; no Dag id becomes a folder of
that name. The id is the Airflow Variable ``XCOM_BACKEND_DEPLOYMENT_ID``: it is in the metadata database,
as the rows are, while a deployment may have several URLs. Claims are listed and never overwritten: of two
that are made at the same time both are seen, and neither counts.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from ..errors import PayloadError, StoreUnavailableError
from ..stores import Listed, Store, pieces
from .api import AirflowAPI, AirflowAPIError
from .output import CommandError

__all__ = ["FOLDER", "VARIABLE", "ClaimError", "Claims"]

VARIABLE = "XCOM_BACKEND_DEPLOYMENT_ID"
FOLDER = "=deployment"
"""Below the prefix; ``reference.segment`` makes no such text of any id."""

# It becomes a part of an object's name.
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Longer than this, and a rule that deletes by age might come first.
_RENEW_SECONDS = 86_400.0
_DESCRIPTION = "Identifies this deployment in its XCom bucket; made by: python -m include.xcom sweep --claim"


class ClaimError(CommandError):
    """This deployment may not sweep the prefix; the message says what to do."""


@dataclass(frozen=True)
class Claims:
    """The claims of a prefix.

    Args:
        store: This deployment's own.
        api: This deployment's Airflow.
        root: URI of the prefix, with a slash at its end.
        prefix: The same as names begin with it; ``""`` for a whole bucket.
    """

    store: Store
    api: AirflowAPI
    root: str
    prefix: str

    def check(self) -> None:
        """Return if this deployment alone has claimed the prefix.

        Raises:
            ClaimError: Nobody has, or another one has.
            AirflowAPIError: Airflow did not say which deployment this is.
            StoreUnavailableError: The claims could not be listed.
        """
        own = self._own_id()
        found = self._list()
        self._refuse_others(own, found)
        if own not in found:
            raise ClaimError(
                f"no deployment has claimed {self.root} yet. If only this one writes below it, run once: python "
                "-m include.xcom sweep --claim. If another one does too, such as staging and production, give "
                "each its own [gcs_xcom] prefix: the other's payloads look like orphans here"
            )

    def refuse_others(self) -> None:
        """Return if no other deployment has claimed the prefix, whether this one has or not.

        Raises:
            ClaimError: Another one has.
            AirflowAPIError: Airflow did not say which deployment this is.
            StoreUnavailableError: The claims could not be listed.
        """
        self._refuse_others(self._own_id(), self._list())

    def claim(self, taken_over: str = "") -> None:
        """Claim the prefix for this deployment, which gets an id if it has none yet.

        Args:
            taken_over: Id of a deployment whose claim is removed.

        Raises:
            ClaimError: Another deployment has claimed it; nothing was changed.
            AirflowAPIError: The id could not be read or made.
            StoreUnavailableError: The claim could not be written.
        """
        self._refuse_others(self._own_id(), self._list(), taken_over)
        own = self._own_id() or self._new_id()
        self._write(own)
        for one in self._list().get(taken_over, []) if taken_over != own else []:
            self.store.delete(one.uri, one.generation)
        try:
            self._refuse_others(own, self._list())
        except ClaimError:
            for one in self._list()[own]:
                self.store.delete(one.uri, one.generation)
            raise

    def renew(self) -> None:
        """Replace this deployment's claim if it is older than a day.

        So with a weekly sweep the claim outlives the bucket's rule that deletes by age.
        """
        own = self._own_id()
        old = self._list().get(own, [])
        if any(time.time() - one.created < _RENEW_SECONDS for one in old):
            return
        self._write(own)
        for one in old:
            with suppress(StoreUnavailableError):  # Under a retention policy; one more does no harm.
                self.store.delete(one.uri, one.generation)

    def _refuse_others(self, own: str, found: dict[str, list[Listed]], taken_over: str = "") -> None:
        for other in sorted(set(found) - {own, taken_over}):
            raise ClaimError(
                f"{self.root} is claimed by another deployment, {other} ({self._place(found[other][-1])}); "
                f"this one is {own or 'new'}. The payloads of the other one look like orphans here. Give this "
                "deployment its own [gcs_xcom] prefix. Only if the other one is gone for good, run: python "
                f"-m include.xcom sweep --take-over {other}"
            )

    def _list(self) -> dict[str, list[Listed]]:
        """Return the claims by deployment. Two of one deployment are from a renewal that was interrupted."""
        folder = f"{self.prefix}{FOLDER}/"
        found: dict[str, list[Listed]] = {}
        for page in self.store.list(folder):
            for one in page:
                found.setdefault(one.name.removeprefix(folder).partition("/")[0], []).append(one)
        return found

    def _write(self, own: str) -> None:
        self.store.put(f"{self.prefix}{FOLDER}/{own}/{uuid4().hex}.txt", [self.api.url.encode()])

    def _place(self, one: Listed) -> str:
        """Return where and when a claim was made, for people."""
        try:
            text = b"".join(pieces(self.store, self.store.describe(one.uri))).decode(errors="replace")
        except PayloadError:
            text = ""
        when = time.strftime("%Y-%m-%d", time.gmtime(one.created))
        return f"{text[:200] or 'at an unknown URL'}, {when}"

    def _own_id(self) -> str:
        """Return the id of this deployment; empty if it has none yet."""
        found = self.api.variable(VARIABLE)
        if found and not _ID.fullmatch(found):
            raise AirflowAPIError(
                f"the Airflow Variable {VARIABLE} is {found!r}; allowed are at most 64 letters, digits, '.', "
                "'_' and '-'. Delete it, then run: python -m include.xcom sweep --claim"
            )
        return found

    def _new_id(self) -> str:
        self.api.create_variable(VARIABLE, uuid4().hex, _DESCRIPTION)
        # Read back: someone else may have been faster.
        own = self._own_id()
        if not own:
            raise AirflowAPIError(f"the Airflow Variable {VARIABLE} was made and is not there")
        return own
