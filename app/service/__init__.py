"""The web service around the engine: HTTP, websocket, jobs, and one expendable worker process."""
