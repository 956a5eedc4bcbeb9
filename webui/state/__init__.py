"""The data of all pages: the services, one snapshot of everything, the numbers of curves. No gradio.

Imports: core. Add what all pages show: a field of `snapshot.Snapshot`. Add what handlers are handed:
`services.Services`.
"""
