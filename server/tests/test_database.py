"""A database that is not there just now is said to be so, whatever the driver calls it."""

from __future__ import annotations

import asyncio
import gc
import random
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from atelier.db.engine import Database, async_url, open_database
from atelier.errors import Unavailable


@pytest.mark.parametrize("code", ["57P03", "57P01", "53300", "08006"])
async def test_a_postgresql_that_is_being_started_or_has_no_room_is_unavailable(code: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readexactly(8))[4:] == (80877103).to_bytes(4):  # asks for TLS
            writer.write(b"N")
            await reader.readexactly(8)
        fields = b"SFATAL\0C" + code.encode() + b"\0Mthe database system is starting up\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    engine = create_async_engine(
        async_url(f"postgresql://a@127.0.0.1:{server.sockets[0].getsockname()[1]}/b")
    )
    try:
        with pytest.raises(Unavailable) as refused:
            await Database(engine).ping()
        assert refused.value.code == "database_unavailable"
    finally:
        await engine.dispose()
        server.close()


async def test_what_a_statement_did_wrong_is_not() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(IntegrityError):
        async with Database(engine).begin() as db:
            await db.execute(text("create table t (a integer primary key)"))
            await db.execute(text("insert into t values (1), (1)"))
    await engine.dispose()


async def test_what_only_reads_waits_for_no_writer_and_cannot_write(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path}/atelier.db") as database:
        async with database.begin() as db:
            await db.execute(text("create table t (a integer)"))
        async with database.begin() as writing:
            await writing.execute(text("insert into t values (1)"))
            async with asyncio.timeout(2), database.read() as reading:
                assert (await reading.execute(text("select count(*) from t"))).scalar_one() == 0
        async with database.read() as db:
            assert (await db.execute(text("select count(*) from t"))).scalar_one() == 1
        for statement in ("insert into t values (2)", " update t set a = 2", "delete from t"):
            with pytest.raises(RuntimeError, match="only reads"):
                async with database.read() as db:
                    await db.execute(text(statement))


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_is_cancelled_leaves_no_lock_behind(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)

    async def use(database: Database) -> None:
        async with database.begin() as db:
            await db.execute(text("insert into t values (1)"))
            await db.execute(text("select * from t limit 1"))

    gc.disable()  # it would let go of what is left behind at some time or other
    try:
        async with open_database(f"sqlite:///{tmp_path}/atelier.db") as database:
            async with database.begin() as db:
                await db.execute(text("create table t (a integer)"))
            for _ in range(40):
                tasks = [asyncio.create_task(use(database)) for _ in range(4)]
                await asyncio.sleep(draw.random() * 0.004)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                async with asyncio.timeout(3):
                    await use(database)
    finally:
        gc.enable()
