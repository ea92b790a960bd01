"""``server = embedded:``: from the bridge to the push service of the same process, without HTTP."""

from collections import Counter

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from xmpppush.http_connections import Response
from xmpppush.mongoosepush.api import DELIVERED, NotificationAPI, read_device_id
from xmpppush.mongoosepush.http_server import Answer

_DONE = Response(200, DELIVERED.body)


class EmbeddedPool(Service):
    """
    What an `HTTPPool` is for a push service elsewhere.

    The request is checked as one from outside, and its answer is what would have come over HTTP, so that
    outcomes and traces are the same.

    Attributes:
        statuses: As of an `HTTPPool`.
        trouble: Always ``None``: it is reached as long as the process runs.
    """

    trouble: str | None = None

    def __init__(self, name: str, notifications: NotificationAPI) -> None:
        self.name = name
        self.statuses: Counter[int | str] = Counter({200: 0, "none": 0})
        self._notify = notifications.notify

    def post(self, path: str, body: bytes) -> "Deferred[Response]":
        """As `HTTPPool.post`; ``path`` is one that the bridge made."""
        _, version, _, segment = path.split("/", 3)
        device_id = segment if "%" not in segment else read_device_id(segment.encode("ascii"))
        if device_id is None:
            return succeed(Response(400, b'{"reason":"invalid_request"}'))
        answer = self._notify(version, device_id, body)
        if isinstance(answer, Answer):
            return succeed(self._response(answer))
        return answer.addCallback(self._response)

    def _response(self, answer: Answer) -> Response:
        self.statuses[answer.status] += 1
        if answer is DELIVERED:
            return _DONE
        after = next((float(value) for name, value in answer.headers if name == "retry-after"), None)
        return Response(answer.status, answer.body, after)
