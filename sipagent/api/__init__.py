"""REST in Teler's shape and the live event stream. The only importer of `aiohttp.web`."""
