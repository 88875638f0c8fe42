"""Keys: one that lets in everywhere, and one each for predicting, for feedback and for reading metrics.

Feedback is apart because monitoring and retraining learn from it: whoever may ask for grades may not thereby teach.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from deployment.api.problems import ProblemError

FEEDBACK, METRICS = "/feedback", "/metrics"


@dataclass(frozen=True, repr=False)  # so that no log shows them
class Keys:
    """The keys that the API asks for; with all of them empty it asks for none.

    As soon as one is set, every guarded route asks for its own or for `every`: a route whose own key was left out is
    not open to strangers.
    """

    every: str = ""
    predict: str = ""  # /predict, /predict/batch, /model and all else but the two below
    feedback: str = ""
    metrics: str = ""

    @property
    def are_asked_for(self) -> bool:
        """Whether any key is set."""
        return any((self.every, self.predict, self.feedback, self.metrics))

    def require(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ProblemError for a request without a key, 401, or with one for other routes, 403."""
        sent = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = sent.partition(b" ")
        key = key.strip()
        own = {FEEDBACK: self.feedback, METRICS: self.metrics}.get(path, self.predict)
        # Each is compared, in constant time, and only then is it asked which was right: time says nothing of keys.
        known = [
            (name, bool(name) & secrets.compare_digest(key, name.encode()))
            for name in (self.every, self.predict, self.feedback, self.metrics)
        ]
        if scheme.lower() != b"bearer" or not any(right for _, right in known):
            reason = "Send the key in the header Authorization: Bearer KEY"
            raise ProblemError(401, reason, headers={"WWW-Authenticate": "Bearer"})
        if not any(right and name in (self.every, own) for name, right in known):
            raise ProblemError(403, f"This key is not for {path if path in (FEEDBACK, METRICS) else 'this route'}")
