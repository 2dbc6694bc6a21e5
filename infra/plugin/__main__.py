"""`python -m infra.plugin <engine address>`: serves one provider to the Pulumi engine.

Prints its port, as the engine expects of a plugin, and ends when the engine interrupts it or is gone. Nothing else may
go to standard output.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

from infra.plugin import _lean

_GRACE_S = 1.0
_ORPHAN_CHECK_S = 5.0
_MAX_MESSAGE_BYTES = 400 * 1024 * 1024


async def serve(engine_address: str | None) -> None:
    """Serve until interrupted, or until the engine that started it is gone."""
    import grpc
    from pulumi.runtime.proto.provider_pb2_grpc import add_ResourceProviderServicer_to_server

    from infra.plugin.host import Host
    from infra.plugin.servicer import Provider

    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=options)
    provider = Provider(Host(engine_address))
    add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(port, flush=True)
    await _stopped_or_orphaned(stopped, engine_address)
    # A wait must not outlast the engine's patience: broken off, it still hands its object's state over.
    await provider.close()
    await server.stop(_GRACE_S)


async def _stopped_or_orphaned(stopped: asyncio.Event, engine_address: str | None) -> None:
    """Until told to stop, or until nobody listens at the engine's address (it was killed)."""
    while True:
        try:
            await asyncio.wait_for(stopped.wait(), _ORPHAN_CHECK_S)
            return
        except TimeoutError:
            if engine_address and not await _listens(engine_address):
                return


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _ORPHAN_CHECK_S)
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError, ValueError):
        return True
    writer.close()
    return True


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)
    _lean.install()
    # What the imports allocate lives as long as the process: no need to look through it again and again.
    gc.disable()
    address = next((arg for arg in sys.argv[1:] if not arg.startswith("-")), None)
    asyncio.run(_unfrozen(address))


async def _unfrozen(address: str | None) -> None:
    task = asyncio.ensure_future(serve(address))
    await asyncio.sleep(0)
    gc.freeze()
    gc.enable()
    await task


if __name__ == "__main__":
    main()
