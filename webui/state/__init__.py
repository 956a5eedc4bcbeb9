"""The data of all pages: the services, a snapshot of everything, the points of curves. No gradio.

Imports: core. Add what all pages show: a field of `snapshot.Snapshot`. Add what handlers use: a field of
`services.Services`.
"""
