"""
Fakes, builders and contract suites: for our own tests and those of plugin authors.

Nothing here is a default of the server. Each fake passes the same contract suite as the real thing.
"""
