"""mod_push: the XMPP server's part of push notifications (XEP-0357)."""
