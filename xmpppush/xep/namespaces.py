"""XML namespaces and FORM_TYPEs by the names that their specifications use."""

CLIENT = "jabber:client"
SERVER = "jabber:server"
COMPONENT = "jabber:component:accept"  # XEP-0114
DIALBACK = "jabber:server:dialback"  # XEP-0220
DIALBACK_FEATURE = "urn:xmpp:features:dialback"  # XEP-0220 section 2.3
STREAMS = "http://etherx.jabber.org/streams"  # RFC 6120 section 4.8
STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"  # RFC 6120 section 4.9
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"  # RFC 6120 section 8.3
TLS = "urn:ietf:params:xml:ns:xmpp-tls"  # RFC 6120 section 5
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"  # RFC 6120 section 6
BIND = "urn:ietf:params:xml:ns:xmpp-bind"  # RFC 6120 section 7
SESSION = "urn:ietf:params:xml:ns:xmpp-session"  # RFC 3921 section 3, optional as of RFC 6121
XML = "http://www.w3.org/XML/1998/namespace"

RSM = "http://jabber.org/protocol/rsm"  # XEP-0059
ROSTER = "jabber:iq:roster"  # RFC 6121 section 2
ROSTER_VERSIONING = "urn:xmpp:features:rosterver"  # RFC 6121 section 2.6
DATA_FORMS = "jabber:x:data"  # XEP-0004
DISCO_INFO = "http://jabber.org/protocol/disco#info"  # XEP-0030
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"  # XEP-0030
COMMANDS = "http://jabber.org/protocol/commands"  # XEP-0050
PUBSUB = "http://jabber.org/protocol/pubsub"  # XEP-0060
PUBSUB_OWNER = "http://jabber.org/protocol/pubsub#owner"
PUBSUB_ERRORS = "http://jabber.org/protocol/pubsub#errors"
PUBSUB_EVENT = "http://jabber.org/protocol/pubsub#event"
PUBSUB_NODE_CONFIG = "http://jabber.org/protocol/pubsub#node_config"
PUBSUB_SUBSCRIBE_AUTHORIZATION = "http://jabber.org/protocol/pubsub#subscribe_authorization"
PUBSUB_SUBSCRIBE_OPTIONS = "http://jabber.org/protocol/pubsub#subscribe_options"
PUBSUB_PUBLISH_OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"
VERSION = "jabber:iq:version"  # XEP-0092
OFFLINE = "msgoffline"  # XEP-0160
SM = "urn:xmpp:sm:3"  # XEP-0198
PING = "urn:xmpp:ping"  # XEP-0199
TIME = "urn:xmpp:time"  # XEP-0202
DELAY = "urn:xmpp:delay"  # XEP-0203
CARBONS = "urn:xmpp:carbons:2"  # XEP-0280
FORWARD = "urn:xmpp:forward:0"  # XEP-0297
HINTS = "urn:xmpp:hints"  # XEP-0334
CSI = "urn:xmpp:csi:0"  # XEP-0352
PUSH = "urn:xmpp:push:0"  # XEP-0357
PUSH_SUMMARY = "urn:xmpp:push:summary"  # XEP-0357 section 7
CHAT_STATES = "http://jabber.org/protocol/chatstates"  # XEP-0085
RECEIPTS = "urn:xmpp:receipts"  # XEP-0184
CARBONS = "urn:xmpp:carbons:2"  # XEP-0280
CHAT_MARKERS = "urn:xmpp:chat-markers:0"  # XEP-0333
JINGLE_MESSAGE = "urn:xmpp:jingle-message:0"  # XEP-0353
STANZA_IDS = "urn:xmpp:sid:0"  # XEP-0359
ENCRYPTION = "urn:xmpp:eme:0"  # XEP-0380, says how something is encrypted
OPENPGP_LEGACY = "jabber:x:encrypted"  # XEP-0027
OPENPGP = "urn:xmpp:openpgp:0"  # XEP-0373
OMEMO = (
    "eu.siacs.conversations.axolotl",
    "urn:xmpp:omemo:0",
    "urn:xmpp:omemo:1",
    "urn:xmpp:omemo:2",
)  # XEP-0384
