"""
HTTP/2 out (RFC 9113): many requests at a time on few connections.

``frames`` reads and writes frames, ``headers`` is HPACK without tables, ``connection`` one connection as a
Twisted protocol, ``client`` the connections to one server with the requests that wait for a stream. The h2
library is the peer in tests and the server of the emulators; as the client it took a third of the whole push
service's time.
"""
