"""Access control: API keys, and the host names allowed for this machine.

There is one key for all routes, and one each for predictions, for feedback and for metrics. Feedback has a separate
key because monitoring and retraining learn from it: clients that may predict cannot influence training.
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
    """The keys that the API requires (none if all are empty), and further allowed host names.

    If any key is set, every guarded route requires its own key or `every`: a route whose own key is not set is not
    public.
    """

    every: str = ""
    predict: str = ""  # all guarded routes except the two below: /predict, /predict/batch, /model
    feedback: str = ""
    metrics: str = ""
    hosts: frozenset[str] = frozenset()

    @property
    def need_key(self) -> bool:
        """Whether any key is set."""
        return any((self.every, self.predict, self.feedback, self.metrics))

    def require_key(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ProblemError 401 if the request has no valid key, 403 if its key is for other routes."""
        sent = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = sent.partition(b" ")
        key = key.strip()
        # Compare with every key in constant time before looking at the results: response times reveal nothing.
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
        """Raise ProblemError 421 if the server listens on loopback and the Host header is not allowed.

        Without a key, only the loopback address keeps others out. A web page opened on this machine can point its own
        domain to 127.0.0.1 ("DNS rebinding"); the browser then treats the API as part of that page's origin.
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


@lru_cache(64)  # nearly all requests have one of two values
def _is_local(host: bytes) -> bool:
    """Whether a Host header is empty, a localhost name or an IP address; DNS rebinding can use none of them."""
    name = _cut_port(host).strip("[]")
    try:
        return bool(ip_address(name))
    except ValueError:
        return name in ("localhost", "") or name.endswith(".localhost")
