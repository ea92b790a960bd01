"""What an app sends, for tests with a real server."""

_CREATE = """
<iq type='set' to='pubsub.localhost' id='create'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='{node}' type='push'/></pubsub>
</iq>"""

_ENABLE = """
<iq type='set' id='enable'>
  <enable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node='{node}'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>{service}</value></field>
      <field var='device_id'><value>{device_id}</value></field>
    </x>
  </enable>
</iq>"""


def push_requests(node: str = "n1", device_id: str = "token-1", service: str = "fcm") -> tuple[str, str]:
    """The two requests that have pushes sent to a device: create a node at pubsub.localhost, enable it."""
    return (
        _CREATE.format(node=node),
        _ENABLE.format(node=node, device_id=device_id, service=service),
    )
