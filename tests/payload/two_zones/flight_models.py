"""Models of an API client's answers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel, Field, HttpUrl


class Fare(BaseModel):
    """Has an alias, as most answers do."""

    amount: Decimal
    currency: str = Field("USD", alias="currencyCode")


class Flight(BaseModel):
    """pydantic parses the time with a time zone class of its own."""

    departs: datetime
    link: HttpUrl
    fares: list[Fare] = []
    gate: str | None = None
