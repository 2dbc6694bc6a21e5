"""Labels and annotations that Switchboard's parts agree on."""

DOMAIN = "switchboard.dev"

MODEL_SERVER = f"{DOMAIN}/model-server"
"""On every pod that serves a model: the model server's name, which is also its route (`/v1/<name>`)."""

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

REGION = "topology.kubernetes.io/region"
"""On nodes, on Switchboard's namespaces (the site's) and on pods (the one in which they run: an edge has its own)."""
ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"

SCRAPE = "prometheus.io/scrape"
SCRAPE_PORT = "prometheus.io/port"
SCRAPE_PATH = "prometheus.io/path"
