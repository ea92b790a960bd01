"""The XMPP server around the roles: streams, client connections, sessions and the router."""
