"""What the registry knows of a candidate, and what it is told of a release: MLflow, with the light client.

Calls block and may be made again: each finds out what is left to do. Who may move `champion` is the server's business;
the operator is asked as `release` (`MLFLOW_TRACKING_USERNAME`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from models import aliases, eligible
from models.aliases import Aliases, Reason
from models.ledger import Ledger
from models.rest import NotFound, RegistryError
from models.rest_write import RegistryWriter
from operators.releases import report
from operators.releases.evidence import Signer, bundle
from operators.releases.values import Checked, Told
from switchboard import labels
from switchboard.api.model_release import Spec, Status
from switchboard.errors import SwitchboardError
from switchboard.kube import Object
from switchboard.registry_users import CHALLENGER, RELEASE_TAG

NOBODY = "unknown"


class Unrecorded(Exception):
    """The registry couldn't be asked or told; to be tried again."""


class Records:
    """The records of the models that a site's ModelServers serve."""

    def __init__(
        self, signer: Signer | None = None, client: Callable[[str], RegistryWriter] = RegistryWriter
    ) -> None:
        """Without a `signer` the evidence isn't signed."""
        self._signer, self._client = signer, client

    def check(self, model: str, registry: str | None, version: int, *, needs_gate: bool = False) -> Checked:
        """What is known of a candidate.

        Raises:
            Unrecorded: the registry can't be asked.
        """
        if registry is None:
            return Checked(model, 0, f"{model}: its ModelServer names no registry (spec.model.registry)")
        try:
            client = self._client(registry)
            champion = eligible.champion_of(client, model)
            if champion is None:
                return Checked(model, 0, f"{model} has no champion yet: there is nothing to compare with")
            facts = eligible.facts_of(client, model, str(version))
            refusal = eligible.refusal(facts, champion, needs_gate=needs_gate)
            return Checked(model, int(champion.version), refusal)
        except (RegistryError, OSError) as error:
            raise Unrecorded(f"MLflow at {registry}: {error}") from error

    def tell(self, told: Told, release: Object, spec: Spec, status: Status, registry: str | None) -> None:
        """Bring the registry to what a release came to: aliases, the ledger, its evidence and report at the version.

        Raises:
            Unrecorded: it couldn't be told, or the ledger is damaged.
        """
        if registry is None or status.champion_version is None or told is Told.NOTHING:
            return
        model, new, old = status.model, str(spec.version), str(status.champion_version)
        try:
            client = self._client(registry)
            found = aliases.read(client, model)
            digest = self._attach(client, release, spec, status)
            reason = Reason(who(release), spec.reason or status.sentence, digest)
            now = datetime.now(UTC)
            if told is Told.PROMOTED:
                aliases.promote(client, model, new, reason=reason, now=now)
            elif told is Told.RETURNED and self._was_moved(client, model, found, new):
                aliases.roll_back(client, model, new, reason=reason, now=now, to=old)
            elif found.challenger == new:
                client.delete_alias(model, CHALLENGER)
            said = f"{status.phase} on {now:%Y-%m-%d %H:%M}Z: {status.sentence}"
            client.set_version_tag(model, new, RELEASE_TAG, said[:5000])
        except (RegistryError, SwitchboardError, OSError) as error:
            raise Unrecorded(f"MLflow at {registry}: {error}") from error

    def _attach(self, client: RegistryWriter, release: Object, spec: Spec, status: Status) -> str:
        """Write the signed evidence and the report beside the candidate's figures; the evidence's SHA-256.

        A version that is gone, or was made of no run, has nothing that they could be attached to.
        """
        try:
            version = client.version(status.model, str(spec.version))
            run = client.run_record(version.run_id) if version.run_id else None
        except NotFound:
            return ""
        if run is None:
            return ""
        about = {
            "model": version.name,
            "version": version.version,
            "runId": version.run_id,
            "tags": dict(version.tags),
            "files": {name: info.sha256 for name, info in version.files().items()},
        }
        made = bundle(release, status.model_dump(mode="json", by_alias=True), about, self._signer)
        folder = f"releases/{release['metadata']['name']}"
        # By its hash: what the ledger names stays, whatever is told after.
        client.log_artifact(run, f"{folder}/evidence-{made.sha256[:12]}.json", made.document())
        shown = report.page(release, spec, status, tags=version.tags, evidence=made.sha256)
        client.log_artifact(run, f"{folder}/report.html", shown.encode())
        return made.sha256

    @staticmethod
    def _was_moved(client: RegistryWriter, model: str, found: Aliases, new: str) -> bool:
        """Whether the candidate is the champion, or is so by the ledger's last word: only then it is taken back."""
        if found.champion == new:
            return True
        entries = Ledger(client, model).entries()
        return bool(entries) and entries[-1].to_version == new


def who(release: Object) -> str:
    """Who asked for a release, as the API server has checked it."""
    notes = release["metadata"].get("annotations") or {}
    return str(notes.get(labels.REQUESTED_BY) or NOBODY)
