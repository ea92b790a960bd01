"""
HTTP/2 out (RFC 9113): many requests at a time on few connections.

``framing`` is the h2 library made fit for a busy client, ``connection`` one connection as a Twisted
protocol, ``client`` the connections to one server with the requests that wait for a stream, ``agent`` the
same as an ``IAgent``.
"""
