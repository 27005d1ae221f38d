"""What can be wrong with a request about webhooks. Documented in ``docs/webhooks.md``."""

from __future__ import annotations

from ..errors import CallerError


class InvalidWebhookUrl(CallerError):
    """The URL is not one that notices may be sent to."""

    code = "INVALID_WEBHOOK_URL"
    status = 422
    sentence = "url must be an https:// address without user, password or fragment."


class InvalidWebhook(CallerError):
    """A field of an endpoint is missing or wrong; the sentence names it."""

    code = "INVALID_WEBHOOK"
    status = 422
    sentence = "A field of the webhook is missing or wrong."


class WebhookNotFound(CallerError):
    """No endpoint has this id."""

    code = "WEBHOOK_NOT_FOUND"
    status = 404
    sentence = "There is no webhook endpoint of that id."


class DeliveryNotFound(CallerError):
    """No delivery has this id."""

    code = "DELIVERY_NOT_FOUND"
    status = 404
    sentence = "There is no delivery of that id."


class TooManyWebhooks(CallerError):
    """As many endpoints are kept as this server takes."""

    code = "TOO_MANY_WEBHOOKS"
    status = 409
    sentence = "No further webhook endpoint can be kept; delete one first."
