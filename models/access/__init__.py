"""Who may do what at the tracking server: MLflow's own authentication, and rules of ours on top.

`rules` decides, a pure function of what is asked for, by whom, and what is known; `asked` and `guard` are the shell
around it in MLflow's server, `accounts` keeps the server's users as the stack has them, and `app` puts it together
(`mlflow server --app-name switchboard`). What no rule names is refused: MLflow grows new endpoints with each version.
"""
