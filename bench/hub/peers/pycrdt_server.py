"""pycrdt-websocket as its documentation starts it, with its SQLite store. usage: pycrdt_server.py PORT FOLDER"""

import asyncio
import sys

import uvicorn
from pycrdt.store import SQLiteYStore  # type: ignore[import-not-found]
from pycrdt.websocket import ASGIServer, WebsocketServer, YRoom  # type: ignore[import-not-found]

port, folder = int(sys.argv[1]), sys.argv[2]


class Store(SQLiteYStore):  # type: ignore[misc]
    db_path = f"{folder}/pycrdt.db"


class Rooms(WebsocketServer):  # type: ignore[misc]
    async def get_room(self, name: str) -> YRoom:
        if name not in self.rooms:
            self.rooms[name] = YRoom(ready=True, ystore=Store(name))
        room = self.rooms[name]
        await self.start_room(room)
        return room


async def main() -> None:
    async with Rooms() as rooms:
        config = uvicorn.Config(
            ASGIServer(rooms), port=port, log_level="warning", ws="websockets", loop="uvloop"
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        await running


asyncio.run(main())
