"""A relay on FastAPI, in the usual shape: one task for each operation, which awaits one send after another.

REDIS_PORT=… uvicorn app:app"""
import asyncio
import os

import redis.asyncio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
server = redis.asyncio.Redis(port=int(os.environ["REDIS_PORT"]), max_connections=5000)
sockets, tasks = {}, {}


async def follow(operation):
    async with server.pubsub() as messages:
        await messages.subscribe("operation:" + operation)
        async for message in messages.listen():
            if message["type"] != "message":
                continue
            text = message["data"].decode()
            for socket in list(sockets[operation]):
                try:
                    await socket.send_text(text)
                except (RuntimeError, WebSocketDisconnect):
                    sockets[operation].discard(socket)


@app.websocket("/ws/operations/{operation}")
async def watch(socket: WebSocket, operation: str):
    await socket.accept()
    sockets.setdefault(operation, set()).add(socket)
    if operation not in tasks:
        tasks[operation] = asyncio.create_task(follow(operation))
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        sockets[operation].discard(socket)
