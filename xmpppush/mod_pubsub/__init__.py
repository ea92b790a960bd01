"""mod_pubsub: the app server, a pubsub service with push nodes (XEP-0060)."""
