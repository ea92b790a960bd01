"""XEPs and RFCs as values: elements become frozen values and back. No Deferred, no reactor, no store."""
