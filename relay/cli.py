"""The command line: arguments in, exit codes out. 0 done, 2 a mistake in the command or the configuration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version

import msgspec

from relay import app, config, schema
from relay.errors import ConfigError
from relay.schema import Config


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "sample":
            print(resources.files("relay").joinpath("sample.toml").read_text(encoding="utf-8"), end="")
            return 0
        settings = _settings(options)
        if options.command == "check":
            print(f"# {options.config} is sound. In force, defaults included:\n\n{_show(settings)}")
            return 0
        return app.run(settings)
    except ConfigError as error:
        print(f"relay: {error.message}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relay", description="A relay for the token streams of language models.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"relay {version('relay')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve | check | sample")
    serve = commands.add_parser("serve", help="relay requests to a provider", allow_abbrev=False)
    serve.add_argument("-c", "--config", metavar="FILE", help="read this configuration file (TOML)")
    serve.add_argument("--upstream", metavar="URL", help="the one provider, where no file is given")
    serve.add_argument(
        "--listen", metavar="HOST:PORT", action="append", help="default 127.0.0.1:8080, or the file's; may be repeated"
    )
    serve.add_argument("--api-key-env", metavar="NAME", help="the environment variable that holds the provider's key")
    serve.add_argument("--log-format", choices=["json", "text", "off"], help="form of the access lines on stdout")
    check = commands.add_parser("check", help="check a configuration and print what is in force", allow_abbrev=False)
    check.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration file (TOML)")
    commands.add_parser("sample", help="print a configuration that explains every value", allow_abbrev=False)
    return parser


def _settings(options: argparse.Namespace) -> Config:
    if options.command == "check":
        return config.load(options.config)
    if options.config and options.upstream:
        raise ConfigError("--upstream and -c FILE exclude each other: leave out one of them")
    if not options.config and not options.upstream:
        raise ConfigError("say where to relay to: either --upstream URL or -c FILE")
    for entry in options.listen or ():
        config.split_address(entry, "--listen")
    if options.config:
        if options.api_key_env:
            raise ConfigError("--api-key-env goes with --upstream; in a file, write api_key_env below [[upstream]]")
        settings = config.load(options.config)
        if options.listen:
            server = msgspec.structs.replace(settings.server, listen=options.listen)
            settings = msgspec.structs.replace(settings, server=server)
            config.check(settings, options.config)
    else:
        settings = config.of_upstream(options.upstream, listen=options.listen, api_key_env=options.api_key_env)
    if options.log_format:
        server = msgspec.structs.replace(settings.server, access_log=options.log_format)
        settings = msgspec.structs.replace(settings, server=server)
    return settings


def _show(settings: Config) -> str:
    """What is in force, defaults included, as a file would say it. A key's variable is named, its value never read."""
    plain = msgspec.to_builtins(settings, enc_hook=_plain)
    lines: list[str] = []
    for table in ("server", "timeouts", "limits", "retention"):
        lines += [f"[{table}]", *_pairs(plain[table]), ""]
    for table in ("upstream", "route"):
        for entry in plain[table]:
            lines += [f"[[{table}]]", *_pairs(entry), ""]
    return "\n".join(lines).rstrip()


def _pairs(table: dict[str, object]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _plain(value: object) -> object:
    """Durations and sizes as a person would write them; reading them again gives the same."""
    if isinstance(value, schema.Seconds):
        return _with_unit(value, {"h": 3600, "m": 60, "s": 1}) if value.is_integer() else f"{value * 1000:g}ms"
    if isinstance(value, schema.Size):
        return _with_unit(value, {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1})
    return value


def _with_unit(value: float, units: dict[str, int]) -> str:
    """In the largest unit of which it is a whole number."""
    fitting = [(unit, factor) for unit, factor in units.items() if value % factor == 0]
    unit, factor = fitting[0] if value else fitting[-1]
    return f"{int(value / factor)}{unit}"
