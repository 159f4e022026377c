"""Renders the chart with Helm's engine and holds every manifest against Kubernetes' schemas."""

import copy
import pathlib
import shutil
import sys
import tempfile
import tomllib

import helm_python
import kubernetes_validate
import yaml

KUBERNETES = "1.33"
HERE = pathlib.Path(__file__).parent
CHART = HERE / "helm" / "pgentra-proxy"
VALUES = {
    "workloadIdentity": {"clientId": "00000000-1111-2222-3333-444444444444"},
    "targets": [
        {"server": "postgresql://one.postgres.database.azure.com/", "warm": 2, "role_map": {"app": "my-app"}},
        {"server": "host=two.postgres.database.azure.com dbname=app", "port": 5433},
    ],
}
# A chart of somebody else's that takes the sidecar.
SIDECAR = """
apiVersion: v1
kind: Pod
metadata:
  name: app
spec:
  initContainers:
    {{- include "pgentra-proxy.sidecar" (dict "image" "pgentra:0.1.0" "server" "postgresql://one/" "args" (list "--warm=2")) | nindent 4 }}
  containers:
    - name: app
      image: app:1
"""

checked = 0


def check(text, origin):
    """Every document of a YAML file; returns them."""
    global checked
    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        checked += 1
        print(f"{origin}: {document['kind']}/{document['metadata']['name']} is valid")
    return documents


def render(chart, values):
    """A chart's manifests, by the path of their template."""
    rendered = helm_python.Chart.load(chart).render(values, name="test", namespace="default")
    return {path: text for path, text in rendered.items() if path.endswith(".yaml")}


def refused(why, change):
    """Values that the chart must not take."""
    values = copy.deepcopy(VALUES)
    change(values)
    try:
        chart = helm_python.Chart.load(CHART)
        chart.validate_schema(chart.merge_values(values))
        render(CHART, values)
    except helm_python.HelmError as error:
        assert why in str(error), f"refused, but not for `{why}`: {error}"
        print(f"chart: refused for `{why}`, as it should be")
    else:
        sys.exit(f"the chart renders, and should be refused for `{why}`")


for manifest in sorted((HERE / "kubernetes").glob("*.yaml")):
    check(manifest.read_text(), manifest.name)

report = helm_python.lint(CHART, VALUES, strict=True, kube_version=f"v{KUBERNETES}.0")
findings = [message for message in report["messages"] if message["severity"] > 1]
if findings or report["errors"]:
    sys.exit(f"helm lint: {findings} {report['errors']}")
print("chart: helm lint finds nothing")

for path, text in render(CHART, VALUES).items():
    for document in check(text, path):
        if document["kind"] == "ConfigMap":
            config = tomllib.loads(document["data"]["proxy.toml"])
            one, two = config["target"]
            assert (one["listen"], two["listen"]) == ("0.0.0.0:5432", "0.0.0.0:5433"), config
            assert one["role_map"] == {"app": "my-app"} and one["warm"] == 2, config
            assert config["drain_timeout"] == 30, config
smallest = VALUES | {"replicas": 1, "auth": {"secretName": ""}, "tls": {"clientCa": "ca.crt"}}
smallest |= {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False, "name": "there"}}
kinds = [document["kind"] for text in render(CHART, smallest).values() for document in check(text, "smallest")]
assert sorted(kinds) == ["ConfigMap", "Deployment", "Service"], kinds

refused("targets is empty", lambda values: values.update(targets=[]))
refused("workloadIdentity.clientId", lambda values: values.update(workloadIdentity={"clientId": ""}))
refused("clientId", lambda values: values.update(workloadIdentity={"clientId": "my-app"}))
refused("server", lambda values: values.update(targets=[{"port": 5432}]))
refused("targets", lambda values: values.update(targets=[{"server": "one", "listen": "0.0.0.0:1"}]))

with tempfile.TemporaryDirectory() as folder:
    app = pathlib.Path(folder) / "app"
    (app / "templates").mkdir(parents=True)
    (app / "Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 0.1.0\n")
    (app / "templates" / "pod.yaml").write_text(SIDECAR)
    (app / "values.yaml").write_text("pgentra-proxy: {}\n")
    shutil.copytree(CHART, app / "charts" / "pgentra-proxy")
    rendered = render(app, {"pgentra-proxy": VALUES})
    (pod,) = check(rendered["app/templates/pod.yaml"], "sidecar in another chart")
    assert pod["spec"]["initContainers"][0]["restartPolicy"] == "Always", pod
    assert pod["spec"]["initContainers"][0]["args"][-2:] == ["--warm=2", "postgresql://one/"], pod

print(f"deploy: {checked} manifests are valid for Kubernetes {KUBERNETES}")
