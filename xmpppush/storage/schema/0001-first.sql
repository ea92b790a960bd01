-- A released schema file stays as it is: a change is the next number.
-- Times are seconds since the epoch. JIDs are prepared (RFC 7622); "bare" means without resource.

CREATE TABLE accounts (
    jid TEXT NOT NULL PRIMARY KEY,      -- bare
    created REAL NOT NULL               -- seconds since the epoch
) WITHOUT ROWID;

-- What SCRAM needs of a password (RFC 5802 section 3); the password itself is nowhere.
CREATE TABLE account_keys (
    account TEXT NOT NULL,              -- accounts.jid
    mechanism TEXT NOT NULL,            -- SCRAM-SHA-1, SCRAM-SHA-256
    salt BLOB NOT NULL,                 -- octets
    iterations INTEGER NOT NULL,        -- applications of the hash
    stored_key BLOB NOT NULL,           -- octets
    server_key BLOB NOT NULL,           -- octets
    PRIMARY KEY (account, mechanism)
) WITHOUT ROWID;

CREATE TABLE roster_items (
    account TEXT NOT NULL,              -- bare JID whose roster it is
    jid TEXT NOT NULL,                  -- bare JID of the contact
    name TEXT NOT NULL,                 -- '': none
    group_names TEXT NOT NULL,          -- JSON list of strings
    subscription TEXT NOT NULL,         -- none, to, from, both
    PRIMARY KEY (account, jid)
) WITHOUT ROWID;

CREATE TABLE offline_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order they were kept, never used twice
    account TEXT NOT NULL,              -- bare JID it is for
    xml TEXT NOT NULL,                  -- the stanza as it will be sent, with its <delay/>
    created REAL NOT NULL               -- seconds since the epoch
);
CREATE INDEX offline_messages_of_account ON offline_messages (account);

-- Notifications without a final answer of the push service. Only the number is looked for: every
-- further index would be paid for by every push.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order they were kept, never used twice
    account TEXT NOT NULL,              -- bare JID of the registration; '': a foreign server published
    pubsub TEXT NOT NULL,               -- JID of the pubsub service
    node TEXT NOT NULL,                 -- its node
    service TEXT NOT NULL,              -- fcm, apns, ...
    path TEXT NOT NULL,                 -- request path, holds the device token
    body BLOB NOT NULL,                 -- JSON, UTF-8
    created REAL NOT NULL,              -- seconds since the epoch, when the message was accepted
    attempts INTEGER NOT NULL,          -- tries that failed
    next_try REAL NOT NULL              -- seconds since the epoch, 0: at once
);

CREATE TABLE registrations (
    account TEXT NOT NULL,              -- bare JID
    pubsub TEXT NOT NULL,               -- JID of the pubsub service, without resource
    node TEXT NOT NULL,                 -- its node
    options TEXT NOT NULL,              -- JSON object, publish options: field to its first value
    resource TEXT NOT NULL,             -- of the session that enabled it
    created REAL NOT NULL,              -- seconds since the epoch, of the last enable
    errors INTEGER NOT NULL,            -- publish errors in a row
    PRIMARY KEY (account, pubsub, node)
) WITHOUT ROWID;

CREATE TABLE nodes (
    host TEXT NOT NULL,                 -- domain of the pubsub service
    name TEXT NOT NULL,                 -- NodeID
    type TEXT NOT NULL,                 -- push, flat, ...
    owner TEXT NOT NULL,                -- bare JID of its creator
    config TEXT NOT NULL,               -- JSON object: pubsub#... to value, where it differs from the type's
    created REAL NOT NULL,              -- seconds since the epoch
    PRIMARY KEY (host, name)
) WITHOUT ROWID;
CREATE INDEX nodes_of_owner ON nodes (owner, host);

CREATE TABLE node_affiliations (
    host TEXT NOT NULL,                 -- nodes.host
    name TEXT NOT NULL,                 -- nodes.name
    jid TEXT NOT NULL,                  -- bare JID or domain
    affiliation TEXT NOT NULL,          -- owner, publisher, publish-only, member, outcast
    PRIMARY KEY (host, name, jid)
) WITHOUT ROWID;
CREATE INDEX node_affiliations_of_jid ON node_affiliations (jid, host);
