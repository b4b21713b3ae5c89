"""A server of tools as its maker would write it: `python -m tests.peers.mcp_server stdio`, or `http PORT`."""

import asyncio
import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("tables")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def opening_hours(day: str) -> str:
    """When the restaurant is open."""
    return f"On {day} from six to ten."


@server.tool()
async def book(day: str, guests: int) -> dict[str, object]:
    """Books a table."""
    if guests > 8:
        raise ValueError(f"too many guests: {guests}")
    return {"day": day, "table": 9}


@server.tool()
async def slow() -> str:
    """Takes its time."""
    await asyncio.sleep(30)
    return "at last"


@server.tool()
def leave() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def secret() -> str:
    """Tells what it was given."""
    return os.environ.get("TABLES_KEY", "") + "/" + os.environ.get("SHOP_KEY", "")


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
