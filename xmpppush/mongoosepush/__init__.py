"""The embedded push service: MongoosePush's REST API towards FCM, APNs, or the sandbox."""
