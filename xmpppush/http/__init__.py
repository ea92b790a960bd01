"""
HTTP out: an ``IAgent`` over httptools with kept-alive connections, and treq's client on top of it.

``connection.py`` speaks HTTP/1.1, ``agent.py`` keeps connections and deadlines, ``client.py`` is
treq with a short way for JSON, ``tls.py`` decides whom to trust, ``reasons.py`` says what went wrong.
"""
