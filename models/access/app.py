"""MLflow's server with its own authentication and our rules: `mlflow server --app-name switchboard`.

MLflow finds `create_app` by the entry point `mlflow.app`. What it takes from the environment beside MLflow's own:
`$MLFLOW_ACCOUNTS_DATABASE_URI`, where users are kept (without it beside the store, `$MLFLOW_BACKEND_STORE_URI`), and
`$MLFLOW_ACCOUNTS_FILE`, the users that there are to be; without a file they are as a Job has left them.
Imports MLflow's application when it is called, not before: MLflow's own command imports this module too.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from switchboard.errors import SwitchboardError

DATABASE_VARIABLE = "MLFLOW_ACCOUNTS_DATABASE_URI"
STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
_CONFIG_VARIABLE = "MLFLOW_AUTH_CONFIG_PATH"


def create_app() -> Any:
    """The ASGI application.

    Raises:
        SwitchboardError: the database of users isn't named, or the list of accounts can't be used.
    """
    if os.environ.get("_MLFLOW_SGI_NAME") != "uvicorn":
        raise SwitchboardError(
            "MLflow with this application runs under uvicorn only", "mlflow server without --*-opts"
        )
    url = os.environ.get(DATABASE_VARIABLE) or os.environ.get(STORE_VARIABLE)
    if not url:
        raise SwitchboardError(
            f"neither ${DATABASE_VARIABLE} nor ${STORE_VARIABLE} is set",
            "name the database in which MLflow's users are",
        )
    store = open_store(url)
    from mlflow.server import app as flask_app
    from mlflow.server import auth

    from models.access.accounts import FILE_VARIABLE, apply, read
    from models.access.guard import Guard, decide
    from models.access.users import Users

    if path := os.environ.get(FILE_VARIABLE):
        apply(store, read(Path(path)))
    users = Users(store)
    # First, so that it is our sentence that a client sees; MLflow's own rules come after.
    flask_app.before_request(decide(users))
    application = auth.create_app(flask_app)
    return Guard(application, users, application.routes)


def open_store(url: str) -> Any:
    """MLflow's store of users in that database, its tables made or migrated, and its authentication configured for it.

    Once a process: MLflow reads its configuration when it is imported.
    """
    folder = Path(tempfile.mkdtemp(prefix="mlflow-auth-"))  # for this user's eyes only
    config = folder / "auth.ini"
    config.write_text(settings(url), encoding="utf-8")
    os.environ[_CONFIG_VARIABLE] = str(config)
    # For forms that `rules` refuses; MLflow doesn't start without it.
    os.environ.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_urlsafe(32))
    # What none of MLflow's own rules is for is refused by MLflow, too.
    os.environ.setdefault("MLFLOW_BASIC_AUTH_FAIL_CLOSED", "true")
    from mlflow.server import auth

    auth.store.init_db(url)
    return auth.store


def settings(url: str) -> str:
    """MLflow's configuration file; a percent sign in a URL's password would be a reference to its parser."""
    return (
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {url.replace('%', '%%')}\n"
        "admin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 30\n"
    )
