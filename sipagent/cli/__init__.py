"""The command line. Errors are one sentence on standard error; exit codes:

0  done, and what was asked for is true
1  the job was done and its outcome is bad (a demo that was not understood, a call that failed)
2  wrong usage, configuration or dialplan
3  something the machine lacks: a package, a model, a port, a permission
"""

import sys

import click

from sipagent import __version__
from sipagent.cli.call import call
from sipagent.cli.calls import calls
from sipagent.cli.db import db
from sipagent.cli.demo import demo
from sipagent.cli.edge import edge
from sipagent.cli.key import key
from sipagent.cli.models import models
from sipagent.cli.report import report
from sipagent.cli.serve import serve
from sipagent.cli.settings import settings
from sipagent.core.errors import ConfigError, SetupError, SipagentError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sipagent")
def cli() -> None:
    """A SIP endpoint with a voice agent inside.

    \b
    First steps:
      sipagent demo                       one real call on this machine: hear, think, answer
      sipagent serve                      the node: SIP on 5060, API on 127.0.0.1:8080, the example dialplan
      sipagent call sip:100@127.0.0.1     ring it with the test phone
      sipagent calls                      what was said and done

    Settings come from sipagent.toml (or -c FILE) and from SIPAGENT_<SECTION>_<SETTING> in the environment.
    """


for command in (demo, serve, call, calls, report, models, db, edge, key, settings):
    cli.add_command(command)


def main() -> None:
    """Entry point of the `sipagent` command."""
    try:
        # Not standalone: errors are reported below; the status of a raised Exit is returned.
        sys.exit(cli.main(standalone_mode=False, prog_name="sipagent") or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConfigError as error:
        _fail(error, 2)
    except SetupError as error:
        _fail(error, 3)
    except SipagentError as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    click.echo(f"sipagent: {error}", err=True)
    sys.exit(code)


__all__ = ["cli", "main"]
