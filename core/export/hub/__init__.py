"""Publishes a finished, verified export on the Hub: what is sent (`parcel`), how (`sending`), in which process
(`publishing`, `publish_worker`).

Imports: what core.export imports. Only files that were listed before are sent. Nothing on the Hub is deleted, except
shards of an earlier merged model that this one no longer has; the result says how to undo a publication. Add an error
of the Hub: `sending.sentence`.
"""
