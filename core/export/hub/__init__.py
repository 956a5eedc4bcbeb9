"""Publishes a finished, verified export on the Hub: what is sent (`parcel`), how (`sending`), in which process
(`publishing`, `worker`).

Imports: what core.export imports. Nothing is sent that was not listed before. Nothing is ever deleted on the hub, but
for shards of an earlier merged model that this one no longer has: how to take something back is said. Add what a hub
may answer:
`sending.sentence`.
"""
