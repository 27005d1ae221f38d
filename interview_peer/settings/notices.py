"""Notices: who receives them, how they are signed, and how long they are kept."""

from __future__ import annotations

import base64

import pydantic
from pydantic import BaseModel, Field, SecretStr

from ..errors import ConfigurationError
from .values import Networks, read_address

MUST_BE = {
    "webhook_allow": "must be networks such as 10.0.0.0/8, separated by commas",
    "webhook_url": (
        "must be an https:// address without user or fragment (http:// only where "
        "INTERVIEW_WEBHOOK_ALLOW names a network)"
    ),
    "webhook_secret": "must be whsec_ followed by 24 to 64 bytes in base64",
    "notice_days": "must be a whole number of days from 1 to 36500",
    "dead_notice_days": "must be a whole number of days from 1 to 36500",
}


class NoticeSettings(BaseModel):
    """Settings of notices."""

    webhook_allow: Networks = Field(default=(), validation_alias="INTERVIEW_WEBHOOK_ALLOW")
    """Networks, beside public addresses, that notices may be sent to."""

    # Behind the networks, which its check looks at.
    webhook_url: str | None = Field(default=None, validation_alias="INTERVIEW_WEBHOOK_URL")
    """Receiver of the notices of every interview."""

    webhook_secret: SecretStr | None = Field(
        default=None, validation_alias="INTERVIEW_WEBHOOK_SECRET"
    )
    """Signs what goes to it, and to callbacks without a secret of their own."""

    notice_days: int = Field(default=30, ge=1, le=36500, validation_alias="INTERVIEW_NOTICE_DAYS")
    """Notices that were delivered are kept for so long, with their deliveries and attempts."""

    dead_notice_days: int | None = Field(
        default=None, ge=1, le=36500, validation_alias="INTERVIEW_DEAD_NOTICE_DAYS"
    )
    """Those that were given up; None keeps them."""

    @pydantic.field_validator("webhook_url")
    @classmethod
    def _check_webhook_url(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        if value is None:
            return None
        return read_address(
            value, ("https", "http") if info.data.get("webhook_allow") else ("https",)
        )

    @pydantic.field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        secret = value.get_secret_value().strip()
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
            raise ValueError("not a secret")
        return SecretStr(secret)

    @pydantic.model_validator(mode="after")
    def _check_receiver(self) -> NoticeSettings:
        if self.webhook_url is not None and self.webhook_secret is None:
            raise ConfigurationError(
                "INTERVIEW_WEBHOOK_SECRET must be set, so that the receiver at "
                "INTERVIEW_WEBHOOK_URL can tell whose notices it gets."
            )
        return self
