"""Labels and annotations that Switchboard's parts agree on."""

DOMAIN = "switchboard.dev"

MODEL_SERVER = f"{DOMAIN}/model-server"
"""On every pod that serves a model: its fleet, which is the service (its route is `/v1/<service>`), or an arm of the
service's release (`switchboard.api.model_server.fleet_of`)."""

NAME = "app.kubernetes.io/name"
"""Kubernetes' own: which program it is. On what belongs to a ModelServer, the object's own name."""

MODEL_VERSION = f"{DOMAIN}/model-version"
"""An annotation on a ModelServer: the version that its alias was resolved to by the last release. Its replicas load
that one, so that none that starts gets another version than its neighbours have."""

RELEASE = f"{DOMAIN}/release"
"""On the ModelServers that are a release's arms: the release's name."""

REQUESTED_BY = f"{DOMAIN}/requested-by"
"""An annotation on a ModelRelease: the user who made it. The API server holds it to be true, and it stays."""

APPROVED_BY = f"{DOMAIN}/approved-by"
"""An annotation on a ModelRelease: the second person, who may write nobody's name but their own. It is gone when what
they approved of is changed."""

TIER = f"{DOMAIN}/tier"
"""On nodes and pods: `core` or `edge`."""

SITE = f"{DOMAIN}/site"
"""On nodes, and on every object that the Pulumi program declares: the site that they belong to."""

SITE_ROLE = f"{DOMAIN}/site-role"
"""On every object that the Pulumi program declares: its site's role, `private` or `public`."""

DATA_CLASS = f"{DOMAIN}/data-class"
"""On workloads and their pods, ConfigMaps, Secrets and claims: the most sensitive data that they hold or see, one of
`switchboard.data.DataClass`."""

DATA_REGIONS = f"{DOMAIN}/data-regions"
"""An annotation beside a DATA_CLASS that is bound to regions: the regions in which that data may be, by commas (see
`switchboard.data.regions_text`)."""

DRAINING = f"{DOMAIN}/draining"
"""An annotation on a model server's pod that is to go: since when gateways send it nothing new, as an RFC 3339 time."""

REFUSES = f"{DOMAIN}/refuses"
"""An annotation on a Service of type LoadBalancer whose clients have somewhere else to go: while no pod of it answers
its liveness probe, they are refused rather than left to wait, even where it has one pod only. The embedded cloud's load
balancer goes by it; elsewhere it is for whoever sets one up."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Kubernetes' own: of the pods of a ReplicaSet, those with the least go first."""

REGION = "topology.kubernetes.io/region"
"""On nodes, on Switchboard's namespaces (the site's) and on pods (the one in which they run: an edge has its own)."""
ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"

SCRAPE = "prometheus.io/scrape"
SCRAPE_PORT = "prometheus.io/port"
SCRAPE_PATH = "prometheus.io/path"
