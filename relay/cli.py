"""The command line: arguments in, exit codes out. 0 done, 2 a mistake in the command or the configuration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version

import msgspec

from relay import app, config
from relay.config import Config
from relay.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "sample":
            print(resources.files("relay").joinpath("sample.toml").read_text(encoding="utf-8"), end="")
            return 0
        settings = _settings(options)
        if options.command == "check":
            print(_show(settings))
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
    serve.add_argument("--listen", metavar="HOST:PORT", action="append", help="instead of the file's; may be repeated")
    serve.add_argument("--api-key-env", metavar="NAME", help="the environment variable that holds the provider's key")
    serve.add_argument("--log-format", choices=["json", "text", "off"], help="form of the access lines on stdout")
    check = commands.add_parser("check", help="check a configuration and print what is in force", allow_abbrev=False)
    check.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration file (TOML)")
    commands.add_parser("sample", help="print a configuration that explains every value", allow_abbrev=False)
    return parser


def _settings(options: argparse.Namespace) -> Config:
    if options.command == "check":
        return config.load(options.config)
    if bool(options.config) == bool(options.upstream):
        raise ConfigError("say where to relay to: either --upstream URL or -c FILE")
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
    for table in ("server", "timeouts", "limits"):
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
    if isinstance(value, config.Seconds):
        return float(value)
    return int(value) if isinstance(value, config.Size) else value
