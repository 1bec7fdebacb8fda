"""The users that docs/security.md documents, loaded into a server as they stand there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def documented() -> list[str]:
    """The ACL commands, one a user."""
    (block,) = re.findall(r"^```acl\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(block).splitlines()


@contextmanager
def loaded(address: str) -> Iterator[dict[str, str]]:
    """Each role's address, while its user exists on the server at `address`."""
    host = address.partition("://")[2]
    with redis.Redis.from_url(address) as admin:
        addresses = {}
        try:
            for line in documented():
                # Not split at blanks: a selector's brackets hold some.
                words = re.findall(r"\(.*?\)|\S+", line)
                admin.execute_command(*words)
                user, password = words[2], words[5].removeprefix(">")
                role = user.removeprefix("closeloop-")
                addresses[role] = f"redis://{user}:{password}@{host}"
            yield addresses
        finally:
            for line in documented():
                admin.acl_deluser(line.split()[2])
