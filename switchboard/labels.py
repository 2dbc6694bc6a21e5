"""Labels and annotations that Switchboard's parts agree on."""

DOMAIN = "switchboard.dev"

MODEL_SERVER = f"{DOMAIN}/model-server"
"""On every pod that serves a model: the model server's name, which is also its route (`/v1/<name>`)."""

TIER = f"{DOMAIN}/tier"
"""On nodes and pods: `core` or `edge`."""

SITE = f"{DOMAIN}/site"
"""On nodes: the site that they belong to."""

REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"

SCRAPE = "prometheus.io/scrape"
SCRAPE_PORT = "prometheus.io/port"
SCRAPE_PATH = "prometheus.io/path"
