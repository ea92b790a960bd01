"""
The API as a twisted.web resource: to put into a site of one's own, or behind ``treq.testing.StubTreq``.

The listener of ``[mongoosepush]`` does without twisted.web (`http_server`).
"""

from functools import partial

from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from xmpppush.mongoosepush.api import PushAPI
from xmpppush.mongoosepush.http_server import Answer, HTTPRequest


class PushResource(Resource):
    """Every path below it comes here; one that it does not know is its own 404."""

    isLeaf = True

    def __init__(self, api: PushAPI) -> None:
        super().__init__()
        self._api = api

    def render(self, request: Request) -> int:
        headers = {
            name.decode("latin-1").lower(): ", ".join(value.decode("latin-1") for value in values)
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        content = request.content.read() if request.content is not None else b""
        answer = self._api(HTTPRequest(request.method.decode("latin-1"), request.path, headers, content))
        if isinstance(answer, Answer):
            _send(request, [], answer)
        else:
            gone: list[Failure] = []
            request.notifyFinish().addErrback(gone.append)
            answer.addCallback(partial(_send, request, gone))
        return NOT_DONE_YET


def _send(request: Request, gone: list[Failure], answer: Answer) -> None:
    if gone:  # the client went away meanwhile
        return
    request.setResponseCode(answer.status)
    request.setHeader("content-type", answer.content_type)
    request.setHeader("content-length", str(len(answer.body)))
    for name, value in answer.headers:
        request.setHeader(name, value)
    request.write(answer.body)
    request.finish()
