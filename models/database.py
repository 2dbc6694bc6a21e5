"""The Job that brings MLflow's database to the schema of the MLflow that is installed: `python -m models.database`.

MLflow's servers refuse a database of another schema, and make an empty one's tables themselves: two at once get in
each other's way. So this runs once, before the servers. It can be run again, after any interruption. Where
$MLFLOW_ACCOUNTS_FILE names the users that there are to be, it makes these as well (`models.access.accounts`).
The database is named by $MLFLOW_BACKEND_STORE_URI, with its password, so neither is an argument that others can read.
Exit codes: 0 the schema is right, and the users are, 1 not (the log's last line says why).
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from switchboard.errors import SwitchboardError

VARIABLE = "MLFLOW_BACKEND_STORE_URI"

log = logging.getLogger("models.database")


def upgrade(url: str) -> None:
    """Make or migrate the tables.

    Raises:
        SwitchboardError: the database can't be reached or migrated; the password is not in the message.
    """
    import alembic.util
    import mlflow
    import mlflow.db
    import sqlalchemy
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise SwitchboardError(f"${VARIABLE} is not the URL of a database") from None
    try:
        mlflow.db.upgrade.callback(url)
    except alembic.util.CommandError as error:
        if "Can't locate revision" not in str(error):
            raise _failed(shown, error, url) from None
        raise SwitchboardError(
            f"{shown} is of a newer MLflow than this one, {mlflow.__version__}: {error}",
            "use an image with that MLflow, or a backup of the database from before: migrations go one way",
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, MlflowException, OSError) as error:
        raise _failed(shown, error, url) from None


def make_users(path: Path, url: str) -> None:
    """Bring MLflow's users in that database to what a file says, the tables for them too.

    Raises:
        SwitchboardError: the file can't be used or the database can't be reached; no password is in the message.
    """
    import sqlalchemy
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    from models.access.accounts import apply, read
    from models.access.app import open_store

    accounts = read(path)
    shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    try:
        apply(open_store(url), accounts)
    except (sqlalchemy.exc.SQLAlchemyError, MlflowException, OSError) as error:
        raise _failed(shown, error, url) from None


def _failed(shown: str, error: Exception, url: str) -> SwitchboardError:
    reason = " ".join(_reason(error).replace(url, shown).split())[:500]
    return SwitchboardError(f"{shown} could not be brought to MLflow's schema: {reason}")


def _reason(error: Exception) -> str:
    """The database's own words where there are any: SQLAlchemy's are those and a page of SQL."""
    original = getattr(error, "orig", None) or error
    fields = original.args[0] if original.args else None
    return str(fields["M"]) if isinstance(fields, dict) and "M" in fields else str(original)


def main() -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    url = os.environ.get(VARIABLE)
    try:
        if not url:
            raise SwitchboardError(f"${VARIABLE} is not set", "it is the URL of MLflow's database")
        upgrade(url)
        if accounts := os.environ.get("MLFLOW_ACCOUNTS_FILE"):
            make_users(Path(accounts), url)
    except SwitchboardError as error:
        log.error("%s", error)
        return 1
    log.info("the database has MLflow's schema")
    return 0


if __name__ == "__main__":
    sys.exit(main())
