"""Who may call: keys, and the names that this machine may be called by.

There is a key for all that the API does, and one each for predicting, for feedback and for reading metrics. Feedback
is apart because monitoring and retraining learn from it: whoever may ask for grades may not thereby teach.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from deployment.api.problems import ProblemError

FEEDBACK, METRICS = "/feedback", "/metrics"
LOOPBACK = frozenset({"127.0.0.1", "::1"})


@dataclass(frozen=True, repr=False)  # so that no log shows a key
class Callers:
    """The keys that the API asks for, none where all are empty, and further names of its host.

    As soon as one key is set, every guarded route asks for its own or for `every`: a route whose own key was left out
    is not open to strangers.
    """

    every: str = ""
    predict: str = ""  # /predict, /predict/batch, /model and all else but the two below
    feedback: str = ""
    metrics: str = ""
    hosts: frozenset[str] = frozenset()

    @property
    def need_key(self) -> bool:
        """Whether any key is set."""
        return any((self.every, self.predict, self.feedback, self.metrics))

    def require_key(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ProblemError for a request without a key, 401, or with one for other routes, 403."""
        sent = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = sent.partition(b" ")
        key = key.strip()
        # Each is compared, in constant time, and only then is it asked which was right: time says nothing of keys.
        known = [
            (name, bool(name) & secrets.compare_digest(key, name.encode()))
            for name in (self.every, self.predict, self.feedback, self.metrics)
        ]
        if scheme.lower() != b"bearer" or not any(right for _, right in known):
            reason = "Send the key in the header Authorization: Bearer KEY"
            raise ProblemError(401, reason, headers={"WWW-Authenticate": "Bearer"})
        own = {FEEDBACK: self.feedback, METRICS: self.metrics}.get(path, self.predict)
        if not any(right and name in (self.every, own) for name, right in known):
            raise ProblemError(403, "This key is for other routes")

    def require_host(self, server: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ProblemError 421 for a request to this machine alone, under a name that is not its own.

        Without a key, only that this machine listens to nobody else keeps strangers out. A page that one opens here can
        have its own name point to 127.0.0.1 ("DNS rebinding"), and the browser then takes the API for a part of it.
        """
        if server not in LOOPBACK:
            return
        host = next((value for name, value in headers if name == b"host"), b"")
        if not _is_local(host) and _cut_port(host) not in self.hosts:
            reason = f"This API is not known as {host.decode('latin-1')[:100]}: ask 127.0.0.1, or add it to WINE_HOSTS"
            raise ProblemError(421, reason)


NO_KEYS = Callers()


def _cut_port(host: bytes) -> str:
    name, colon, port = host.decode("latin-1").lower().rpartition(":")
    return name if colon and port.isdigit() else host.decode("latin-1").lower()


@lru_cache(64)  # of nearly all requests it is one of two
def _is_local(host: bytes) -> bool:
    """Whether a Host header names this machine, or an address in digits, which no name can be moved to."""
    name = _cut_port(host).strip("[]")
    try:
        return bool(ip_address(name))
    except ValueError:
        return name in ("localhost", "") or name.endswith(".localhost")
