"""An OpenAI-compatible server for a run's model: `server` (routes and access), `requests` (bodies), `batcher` (requests
to the chat worker), `replies` (answers). No torch.

Imports: chat, runs, data, system and the ground; starlette and uvicorn, which come with gradio.
"""

PORT = 8000  # unless another is chosen
