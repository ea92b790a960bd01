"""
What a push costs: a real server process under load, and its parts one by one.

``python -m benchmarks pipeline`` starts the server on one core and, from this process on another core,
writes chat messages to absent users and stands in for MongoosePush.
"""
