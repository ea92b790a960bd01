"""The bridge: notifications that an app server accepted become requests to a MongoosePush."""
