-- Times are seconds since the epoch.

CREATE TABLE node_subscriptions (
    host TEXT NOT NULL,                 -- nodes.host
    name TEXT NOT NULL,                 -- nodes.name
    jid TEXT NOT NULL,                  -- as subscribed: bare, or with a resource
    account TEXT NOT NULL,              -- jid without resource
    state TEXT NOT NULL,                -- subscribed, pending
    options TEXT NOT NULL,              -- JSON object: pubsub#... to value, where it differs from the default
    created REAL NOT NULL,              -- seconds since the epoch
    PRIMARY KEY (host, name, jid)
) WITHOUT ROWID;
CREATE INDEX node_subscriptions_of_account ON node_subscriptions (account, host);

CREATE TABLE node_items (
    host TEXT NOT NULL,                 -- nodes.host
    name TEXT NOT NULL,                 -- nodes.name
    id TEXT NOT NULL,                   -- ItemID
    number INTEGER NOT NULL,            -- within the node, in the order of publishing
    publisher TEXT NOT NULL,            -- bare JID; '': an account that was removed
    payload TEXT NOT NULL,              -- XML; '': none
    size INTEGER NOT NULL,              -- octets of the payload in UTF-8
    created REAL NOT NULL,              -- seconds since the epoch, when it was published
    PRIMARY KEY (host, name, id)
);
CREATE INDEX node_items_in_order ON node_items (host, name, number);
CREATE INDEX node_items_of_publisher ON node_items (publisher);
