"""What each kind of problem means, for those who write clients: the source of `/problems/…` and of docs/errors.md."""

from dataclasses import dataclass

from instafeed.api.errors import FOREIGN_HOST, FRAMEWORK, INTERNAL, STATUSES

_MEANINGS = {
    "bad-request": "The request is not HTTP as the server understands it. Sending it again does not help.",
    "body-too-large": "The body has more bytes than this call takes. `GET /v1/limits` tells how many it takes.",
    "body-too-slow": "The body did not arrive in time. Nothing was done; send it again.",
    "conflict": "It contradicts what is there already. Read the thing again before you decide what to do.",
    "digest-mismatch": "The bytes that arrived are not those of the digest that was sent with them, or ahead of them. Nothing of"
    " them is kept; upload the photo again.",
    "email-taken": "Another account has confirmed this e-mail address. If you read its mails, you can choose a new password for that"
    " account.",
    "foreign-host": "The `Host` header names a host that is not served here.",
    "headers-too-large": "The request's headers have more bytes than are taken. Send fewer or shorter ones.",
    "headers-too-slow": "The request's headers did not arrive in time. Nothing was done; send it again.",
    "idempotency-in-flight": "The first request with this `Idempotency-Key` is still under way. Send it again a moment later.",
    "idempotency-mismatch": "This `Idempotency-Key` was used for another request. Take a new key for a new request.",
    "internal": "An error that nobody foresaw. It is logged under the request's id: name it when you ask for help. A request"
    " with an `Idempotency-Key` can be sent again.",
    "invalid": "The request is well-formed, but some of it cannot be accepted. `errors` names each field and what is wrong"
    " with it.",
    "malformed-body": "The body is not what its call takes: not UTF-8, not JSON, nested too deeply, a field named twice, or no"
    " form with a boundary.",
    "media-incomplete": "The photo is empty, or has fewer or more bytes than were announced. Upload it again.",
    "media-too-large": "The photo has more bytes than are taken. `GET /v1/limits` tells how many are.",
    "media-unsupported": "The bytes are no photo of a type that is taken, whatever their name says. `GET /v1/limits` lists the"
    " types.",
    "media-unusable": "A photo does not exist, is not yours, failed, or belongs to a post already or to your account. `errors` tells"
    " which.",
    "method-not-allowed": "The path exists and does not take this method. `Allow` lists those that it takes.",
    "not-found": "It does not exist, or you may not see it: the answer is the same.",
    "rate-limited": "Too many requests. Wait for the seconds in `Retry-After`; `RateLimit` tells where you stand before it"
    " comes to that.",
    "too-many-tags": "You follow as many tags as you may; `GET /v1/limits` tells how many. Unfollow one.",
    "too-many-uploads": "You have as many resumable uploads open as you may have; `GET /v1/limits` tells how many. Complete or"
    " delete one, or wait until one expires.",
    "token-unusable": "The token is wrong, was used, has expired, or was overtaken by a change. Ask for another mail.",
    "unauthenticated": "The call needs a token and got none, or one that is malformed, revoked or expired. Log in again.",
    "unavailable": "A server that this call needs does not answer. Nothing was done; wait for the seconds in `Retry-After`, if"
    " it is there, and send it again.",
    "upload-too-slow": "The photo arrived more slowly than uploads may. `GET /v1/limits` tells the rate.",
    "username-taken": "Somebody has this username, or had it until 14 days ago, or it is reserved.",
    "wrong-credentials": "There is no account with this username and password. Which of the two is wrong is not told.",
    "wrong-password": "`current_password` is not the account's password. You are logged in still, and nothing was changed.",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem."""

    slug: str
    """The last part of a problem's `type`."""
    title: str
    status: int
    meaning: str
    """What happened and what a client can do, as Markdown."""


def _kinds() -> dict[str, Kind]:
    named = [(error.slug, error.title, status) for error, status in STATUSES.items()]
    named += [(slug, title, status) for status, (slug, title) in FRAMEWORK.items()]
    named += [(*FOREIGN_HOST, 400), (*INTERNAL, 500)]
    return {slug: Kind(slug, title, status, _MEANINGS.get(slug, "")) for slug, title, status in sorted(named)}


KINDS = _kinds()
"""Every kind of problem by its slug."""
