"""
XMPP push notifications, the whole chain in one process.

phone -> server/ -> mod_push/ -> mod_pubsub/ -> mod_push_service_mongoosepush/ -> mongoosepush/ -> FCM, APNs

Each folder is a role of the MongooseIM push tutorial and reads the same way: a stanza or request is
read (pure), decided upon (pure), acted on (thin I/O) and answered (a table). ``tap.py`` alone knows
all of them; the others meet through ``interfaces.py`` and the values of ``model.py``.
"""

__version__ = "0.1.0"
