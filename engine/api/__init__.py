"""The HTTP API: metrics, health, what stands where, a decision without a record, and control.

`app` says what is answered, `server` serves it on a thread, `listening` binds the port, and
`mailbox` takes questions to the worker's thread. Only a worker that serves HTTP imports `app` and
`server`: FastAPI and uvicorn take their time to load.
"""
