"""The client that tests ask with."""

import httpx

# One for all: a client reads the certificates of every authority when it is made, which takes 30 times as long as a
# request to a server here. It keeps no connection, so that each request may reach another process of a server.
WEB = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
