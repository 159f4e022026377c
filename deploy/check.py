"""Checks the charts and the manifests with the programs that read them: Helm renders, Kubernetes' schemas validate each manifest,
and pgentra with `--check-config` reads each configuration and each command line of a container.

Usage: check.py PGENTRA [HELM]. Without HELM the charts are left out. The values table of each chart is compared with its values.
"""

import copy
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import kubernetes_validate
import yaml

KUBERNETES = "1.33"
HERE = pathlib.Path(__file__).parent
PROXY = HERE / "helm" / "pgentra-proxy"
GATEWAY = HERE / "helm" / "pgentra-gateway"
OPERATOR = HERE / "helm" / "pgentra-operator"
LOCAL = HERE / "helm" / "pgentra-local"
CLIENT_ID = "00000000-1111-2222-3333-444444444444"
PROXY_VALUES = {
    "workloadIdentity": {"clientId": CLIENT_ID},
    "targets": [
        {"server": "postgresql://one.postgres.database.azure.com/", "warm": 2, "role_map": {"app": "my-app"}},
        {"server": "host=two.postgres.database.azure.com dbname=app", "port": 5433},
    ],
}
# In front of the pods of a StatefulSet.
GATEWAY_VALUES = {
    "config": {"tenant": [CLIENT_ID]},
    "servers": [{"upstream": "postgres-0.postgres,postgres-1.postgres", "target_session_attrs": "primary"}],
    "upstreamCa": {"secretName": "postgres-tls"},
    "authority": {"secretName": "pgentra-authority"},
}
# In front of a cluster of CloudNativePG, which makes the secret NAME-ca and the services NAME-rw and NAME-ro.
CLOUDNATIVEPG = {
    "config": {"tenant": [CLIENT_ID], "method": "scram"},
    "servers": [
        {"name": "read", "upstream": "app-ro.data.svc", "host_names": ["read.example.com"]},
        {"name": "write", "upstream": "app-rw.data.svc"},
    ],
    "upstreamCa": {"secretName": "app-ca"},
    "password": {"secretName": "pgentra-password"},
}
OPERATOR_VALUES = {
    "workloadIdentity": {"clientId": CLIENT_ID},
    "roles": {"servers": ["*.postgres.database.azure.com", "db.example.com"]},
}
# Every value that adds something.
EVERYTHING = {
    "autoscaling": {"enabled": True, "minReplicas": 3},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
    "extraVolumes": [{"name": "pki", "configMap": {"name": "pki"}}],
    "extraVolumeMounts": [{"name": "pki", "mountPath": "/etc/pki", "readOnly": True}],
    "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["one.example"]}],
    "dnsPolicy": "Default",
    "imagePullSecrets": [{"name": "registry"}],
    "podSecurityContext": {"fsGroup": 1000},
    "podLabels": {"team": "data", "azure.workload.identity/use": "true"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "database", "operator": "Exists"}],
    "podDisruptionBudget": {"minAvailable": "50%"},
}
# A chart that depends on this one and takes the sidecar from it.
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

PGENTRA = pathlib.Path(sys.argv[1]).resolve()
HELM = sys.argv[2] if len(sys.argv) > 2 else None
counted = {"manifests": 0, "configurations": 0}


def run(*words, **options):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)


class Mounts:
    """The folder /etc/pgentra of a pod, as a folder of this machine."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        tls, auth, upstream_ca, authority, password = (
            self.folder / name for name in ("tls", "auth", "upstream-ca", "authority", "password")
        )
        for part in (tls, auth, upstream_ca, authority, password, self.folder / "config"):
            part.mkdir(mode=0o700)
        make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=pgentra"]
        run("openssl", *make, "-keyout", tls / "tls.key", "-out", tls / "tls.crt", check=True)
        (tls / "tls.key").chmod(0o640)
        (tls / "ca.crt").write_text((tls / "tls.crt").read_text())
        verifier = run(PGENTRA, "proxy", "hash-password", "app", input="a password\n", check=True).stdout
        (auth / "users.txt").write_text(verifier)
        (auth / "users.txt").chmod(0o640)
        (upstream_ca / "ca.crt").write_text((tls / "tls.crt").read_text())
        init = [PGENTRA, "gateway", "init", "--tenant", CLIENT_ID]
        run(*init, "--method", "cert", "--authority", authority / "authority.pem", check=True)
        run(*init, "--method", "scram", "--password-file", password / "password", check=True)

    def of(self, text):
        return text.replace("/etc/pgentra", str(self.folder))

    def read_by_pgentra(self, origin, arguments, files={}):
        """Fails unless `pgentra` takes these arguments, with these texts as files of the folder `config`."""
        for name, text in files.items():
            (self.folder / "config" / name).write_text(self.of(text))
        # --check signs in, which takes a server.
        arguments = [self.of(argument) for argument in arguments if argument != "--check"]
        environment = {"PATH": os.environ["PATH"], "AZURE_CLIENT_ID": CLIENT_ID}
        done = run(PGENTRA, *arguments, "--check-config", env=environment)
        if done.returncode != 0:
            sys.exit(f"{origin}: pgentra {' '.join(arguments)} --check-config: {done.stderr}\n{files}")
        counted["configurations"] += 1
        print(f"{origin}: pgentra takes the configuration")


def documents(text):
    found = [document for document in yaml.safe_load_all(text) if document]
    return [item for document in found for item in (document["items"] if document["kind"] == "List" else [document])]


def check(text, origin, mounts):
    """Every document of a YAML file, and what its containers run; returns the documents."""
    found = documents(text)
    files = {}
    for document in found:
        # Kubernetes has no schema of the Prometheus operator's resources.
        if not document["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            counted["manifests"] += 1
            print(f"{origin}: {document['kind']}/{document['metadata']['name']} is valid")
        if document["kind"] == "ConfigMap":
            files = document["data"]
    for document in found:
        spec = document.get("spec", {})
        pod = spec.get("template", {}).get("spec") or (spec if document["kind"] == "Pod" else {})
        for container in pod.get("containers", []) + pod.get("initContainers", []):
            if container["name"] == "pgentra":
                reads = any(argument.startswith("--config=") for argument in container["args"])
                mounts.read_by_pgentra(origin, container["args"], files if reads else {})
    return found


def template(chart, values):
    """What Helm does with the chart and these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return run(HELM, "template", "test", chart, "--namespace", "default", "--values", file.name)


def render(chart, values):
    """A chart's manifests, as one text."""
    done = template(chart, values)
    if done.returncode != 0:
        sys.exit(f"helm template: {done.stderr}")
    return done.stdout


def refused(chart, values, why, change):
    """Values that the chart must not take."""
    values = copy.deepcopy(values)
    change(values)
    done = template(chart, values)
    if done.returncode == 0:
        sys.exit(f"{chart.name} renders, and must be refused for `{why}`")
    assert why in done.stderr, f"refused, but not for `{why}`: {done.stderr}"
    print(f"{chart.name}: refused for `{why}`, as it should be")


def config_of(rendered):
    (config,) = [document for document in rendered if document["kind"] == "ConfigMap"]
    (text,) = [text for name, text in config["data"].items() if name in ("proxy.toml", "gateway.toml")]
    return tomllib.loads(text)


def leaves(values, path=""):
    """Each value of values.yaml that is no map, or an empty one: its path and its default."""
    for key, value in values.items():
        below = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value:
            yield from leaves(value, below)
        else:
            yield below, value


def values_table(chart):
    """The table in the chart's README has each value with its default, and the schema has each value."""
    values = yaml.safe_load((chart / "values.yaml").read_text())
    shown = lambda value: value if isinstance(value, str) and value else json.dumps(value, separators=(",", ":"))
    expected = [(path, shown(value)) for path, value in leaves(values)]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]*)` \| \S", (chart / "README.md").read_text(), re.MULTILINE)
    for wrong in sorted(set(expected) ^ set(rows)):
        print(f"README.md of {chart.name}: {wrong} is {'missing' if wrong in expected else 'not in values.yaml'}", file=sys.stderr)
    if rows != expected:
        sys.exit(f"the table in {chart.name}/README.md differs from values.yaml, which has the same order")
    schema = json.loads((chart / "values.schema.json").read_text())["properties"]
    helms_own = {"global", "enabled"}
    assert set(schema) - helms_own == set(values), set(schema) ^ set(values)
    print(f"{chart.name}: the README and the schema have all {len(rows)} values")


def pods_have_everything(pods):
    """Each value for pods is in these pods."""
    for name, pod in pods.items():
        spec, labels = pod["spec"], pod["metadata"]["labels"]
        (container,) = spec["containers"]
        for key in ["hostAliases", "dnsPolicy", "imagePullSecrets", "nodeSelector", "tolerations"]:
            assert spec[key] == EVERYTHING[key], (name, key, spec)
        assert spec["securityContext"]["fsGroup"] == 1000, (name, spec)
        assert spec["securityContext"]["runAsNonRoot"] is True, (name, spec)
        assert container["env"] == EVERYTHING["extraEnv"], (name, container)
        assert EVERYTHING["extraVolumes"][0] in spec["volumes"], (name, spec)
        assert EVERYTHING["extraVolumeMounts"][0] in container["volumeMounts"], (name, container)
        assert EVERYTHING["podLabels"].items() <= labels.items(), (name, labels)


def everything(chart, values, mounts):
    """Each value that adds something is in the manifest that it is for."""
    rendered = check(render(chart, values | EVERYTHING), f"{chart.name}, everything", mounts)
    by_kind = {document["kind"]: document for document in rendered}
    pods_have_everything({"Deployment": by_kind["Deployment"]["spec"]["template"], "the test's pod": by_kind["Pod"]})
    assert "replicas" not in by_kind["Deployment"]["spec"], by_kind["Deployment"]
    selected = by_kind["Service"]["spec"]["selector"]
    assert not selected.items() <= by_kind["Pod"]["metadata"]["labels"].items(), "the Service selects the test's pod"
    assert by_kind["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 3, by_kind
    assert by_kind["PodDisruptionBudget"]["spec"]["minAvailable"] == "50%", by_kind
    ports = [port["name"] for port in by_kind["Service"]["spec"]["ports"]]
    monitor, rule = by_kind["ServiceMonitor"], by_kind["PrometheusRule"]
    assert monitor["spec"]["endpoints"][0]["port"] in ports, (monitor, ports)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= by_kind["Service"]["metadata"]["labels"].items(), monitor
    rules = (HERE / "prometheus" / f"{chart.name}.rules.yml").read_text()
    assert rule["spec"] == yaml.safe_load(rules), "the chart has other rules than deploy/prometheus"
    for resource in (monitor, rule):
        assert resource["metadata"]["labels"]["release"] == "prometheus", resource
    print(f"{chart.name}: every value reaches its manifest")


def lint(chart, values):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        done = run(HELM, "lint", "--strict", chart, "--values", file.name)
        if done.returncode != 0:
            sys.exit(f"helm lint: {done.stdout}{done.stderr}")
    print(f"{chart.name}: helm lint finds nothing")


def gateway_chart(mounts):
    lint(GATEWAY, GATEWAY_VALUES)
    rendered = check(render(GATEWAY, GATEWAY_VALUES), "pgentra-gateway, a StatefulSet", mounts)
    config = config_of(rendered)
    assert config["listen"] == "0.0.0.0:5432" and config["drain_timeout"] == 30, config
    assert config["server"] == GATEWAY_VALUES["servers"], config

    rendered = check(render(GATEWAY, CLOUDNATIVEPG), "pgentra-gateway, CloudNativePG", mounts)
    assert config_of(rendered)["server"] == CLOUDNATIVEPG["servers"], rendered
    (deployment,) = [document for document in rendered if document["kind"] == "Deployment"]
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert "authority" not in volumes, volumes
    # The secret of CloudNativePG has the key of its authority, too.
    assert volumes["upstream-ca"]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}], volumes

    mapped = copy.deepcopy(GATEWAY_VALUES)
    mapped["mapping"] = {
        "role": [{"name": "app", "object_ids": [CLIENT_ID], "needs_second_factor": True}],
        "deny": [{"usernames": ["former@example.com"]}],
    }
    mapped["port"] = 6432
    mapped["servers"][0] |= {"max_connections": 1000000, "expiry": "end", "expiry_notice": 60.0}
    rendered = check(render(GATEWAY, mapped), "pgentra-gateway, a mapping", mounts)
    config = config_of(rendered)
    assert (config["flavour"], config["server"][0]["max_connections"]) == ("none", 1000000), config
    (service,) = [document for document in rendered if document["kind"] == "Service"]
    assert service["spec"]["ports"] == [{"name": "postgresql", "port": 6432, "targetPort": "postgresql"}], service
    (files,) = [document["data"] for document in rendered if document["kind"] == "ConfigMap"]
    assert tomllib.loads(files["mapping.toml"]) == mapped["mapping"], files
    identity = {"workloadIdentity": {"enabled": True, "clientId": CLIENT_ID}}
    labelled = [
        document["kind"]
        for document in check(render(GATEWAY, GATEWAY_VALUES | identity), "pgentra-gateway, an identity", mounts)
        if "azure.workload.identity" in json.dumps(document)
    ]
    assert sorted(labelled) == ["Deployment", "Pod", "ServiceAccount"], labelled
    everything(GATEWAY, GATEWAY_VALUES | identity, mounts)

    for why, change in [
        ("servers is empty", lambda values: values.update(servers=[])),
        ("upstream", lambda values: values.update(servers=[{"upstream": "/var/run/postgresql"}])),
        ("upstream", lambda values: values.update(servers=[{"name": "one"}])),
        ("method", lambda values: values["servers"][0].update(method="peer")),
        ("secretName", lambda values: values.update(upstreamCa={"key": "ca.crt"})),
        ("config", lambda values: values["config"].update(listen=["0.0.0.0:1"])),
        ("port", lambda values: values.update(port=80)),
        ("extraVolumes", lambda values: values.update(extraVolumes=[{"name": "authority", "emptyDir": {}}])),
        ("mapping", lambda values: values.update(mapping={"rule": []})),
        ("targets", lambda values: values.update(targets=[])),
    ]:
        refused(GATEWAY, GATEWAY_VALUES, why, change)


def injected(pod):
    """What `pgentra kubernetes inject` makes of a pod."""
    done = run(PGENTRA, "kubernetes", "inject", "-f", "-", "-o", "json", input=json.dumps(pod))
    if done.returncode != 0:
        sys.exit(f"pgentra kubernetes inject: {done.stderr}")
    return json.loads(done.stdout)


def injection(mounts):
    """The sidecar of the injection is that of the manifest, and valid for Kubernetes in each kind of object."""
    golden = HERE.parent / "crates" / "injection" / "tests" / "golden"
    for manifest in sorted(golden.glob("*.injected.yaml")):
        check(manifest.read_text(), manifest.name, mounts)
    (deployment,) = [
        document
        for document in documents((HERE / "kubernetes" / "sidecar.yaml").read_text())
        if document["kind"] == "Deployment"
    ]
    template = deployment["spec"]["template"]
    (written,) = template["spec"].pop("initContainers")
    template["metadata"]["annotations"] = {"pgentra.dev/target": written["args"][-1]}
    (sidecar,) = injected(deployment)["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["args"] == [argument for argument in written["args"] if not argument.startswith("--drain-timeout")]
    same_but_args(sidecar, written)
    print("the sidecar of the injection is that of sidecar.yaml")


def same_but_args(sidecar, written):
    """Two sidecars differ in their arguments, in the name of a port, and in what only one of them says of its user."""
    one, other = (copy.deepcopy(container) for container in (sidecar, written))
    for container in (one, other):
        del container["args"]
        container["securityContext"].setdefault("runAsNonRoot", True)
        for port in container["ports"]:
            port.pop("name")
        for probe in ("readinessProbe", "livenessProbe"):
            container[probe]["httpGet"].pop("port")
    assert one == other, (one, other)


# What the operator may do with objects that no name restricts: the resource's own kind, its status, events, and the label of a
# namespace. A name cannot restrict `create`.
WITHOUT_NAMES = {
    ("ClusterRole", "pgentra.dev", "postgresroles"): {"get", "list", "watch", "patch"},
    ("ClusterRole", "pgentra.dev", "postgresroles/status"): {"patch"},
    ("ClusterRole", "events.k8s.io", "events"): {"create", "patch"},
    ("ClusterRole", "", "namespaces"): {"get"},
    ("Role", "coordination.k8s.io", "leases"): {"create"},
}
BY_NAME = {
    ("Role", "coordination.k8s.io", "leases", "test-pgentra-operator"): {"get", "update"},
    ("Role", "", "secrets", "test-pgentra-operator-webhook"): {"get", "update"},
    ("ClusterRole", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "a-test-pgentra-operator"): {"get", "patch"},
}


def rights(rendered):
    """The rules of all roles are these rights, no more and no fewer."""
    without_names, by_name = {}, {}
    for document in rendered:
        for rule in document.get("rules", []):
            assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}, rule
            for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
                what = (document["kind"], group, resource)
                if not rule.get("resourceNames"):
                    without_names.setdefault(what, set()).update(rule["verbs"])
                for name in rule.get("resourceNames", []):
                    by_name.setdefault((*what, name), set()).update(rule["verbs"])
    assert without_names == WITHOUT_NAMES, without_names
    assert by_name == BY_NAME, by_name


def operator_chart(mounts):
    lint(OPERATOR, OPERATOR_VALUES)
    rendered = check(render(OPERATOR, OPERATOR_VALUES), "pgentra-operator", mounts)
    (deployment,) = [document for document in rendered if document["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 2, deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--server=*.postgres.database.azure.com,db.example.com" in container["args"], container
    (definition,) = [document for document in rendered if document["kind"] == "CustomResourceDefinition"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}, definition["metadata"]
    verbs = {verb for document in rendered if "rules" in document for rule in document["rules"] for verb in rule["verbs"]}
    assert "*" not in verbs and "delete" not in verbs, verbs
    values = {key: value for key, value in EVERYTHING.items() if key in yaml.safe_load((OPERATOR / "values.yaml").read_text())}
    rendered = check(render(OPERATOR, OPERATOR_VALUES | values), "pgentra-operator, everything", mounts)
    by_kind = {document["kind"]: document for document in rendered}
    pods_have_everything({"Deployment": by_kind["Deployment"]["spec"]["template"]})
    assert by_kind["PodDisruptionBudget"]["spec"]["minAvailable"] == "50%", by_kind
    for_sidecars = ("extraEnv", "extraVolumes", "extraVolumeMounts", "hostAliases")
    more = {"injection": {key: EVERYTHING[key] for key in for_sidecars} | {"excludedNamespaces": ["kube-system", "ci"]}}
    rendered = check(render(OPERATOR, OPERATOR_VALUES | more), "pgentra-operator, sidecars", mounts)
    by_kind = {document["kind"]: document for document in rendered}
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    (sidecar,) = [json.loads(word.removeprefix("--sidecar=")) for word in container["args"] if word.startswith("--sidecar=")]
    in_sidecar = ("env", "volumes", "volumeMounts", "hostAliases")
    assert [sidecar[key] for key in in_sidecar] == [EVERYTHING[key] for key in for_sidecars], sidecar
    for webhook in by_kind["MutatingWebhookConfiguration"]["webhooks"]:
        (others,) = [one for one in webhook["namespaceSelector"]["matchExpressions"] if one["operator"] == "NotIn"]
        assert others["values"] == ["kube-system", "ci", "default"], webhook
        assert webhook["sideEffects"] == "None" and webhook["matchConditions"], webhook
    rights(rendered)
    assert "data" not in by_kind["Secret"], "an upgrade would take the certificate away"
    without = check(render(OPERATOR, OPERATOR_VALUES | {"injection": {"enabled": False}}), "pgentra-operator, no webhook", mounts)
    assert "webhook" not in json.dumps(without), without
    print("pgentra-operator: every value reaches its manifest")

    for why, change in [
        ("workloadIdentity.clientId", lambda values: values.update(workloadIdentity={"clientId": ""})),
        ("roles.servers is empty", lambda values: values.update(roles={"enabled": True})),
        ("servers", lambda values: values.update(roles={"servers": ["postgresql://one"]})),
        ("replica", lambda values: values.update(replica=3)),
        ("targets", lambda values: values.update(targets=[])),
    ]:
        refused(OPERATOR, OPERATOR_VALUES, why, change)
    for wrong in ({"failurePolicy": "Wait"}, {"certificateLifetime": 1}, {"extraEnv": ["A=b"]}, {"images": {}}):
        refused(OPERATOR, OPERATOR_VALUES, next(iter(wrong)), lambda values: values.update(injection=wrong))


def proxy_chart(mounts):
    lint(PROXY, PROXY_VALUES)
    config = config_of(check(render(PROXY, PROXY_VALUES), "pgentra-proxy", mounts))
    one, two = config["target"]
    assert (one["listen"], two["listen"]) == ("0.0.0.0:5432", "0.0.0.0:5433"), config
    assert one["role_map"] == {"app": "my-app"} and one["warm"] == 2, config
    assert config["drain_timeout"] == 30, config

    # What people write in values files: numbers of each size, lists, switches, durations, in the process and in a target.
    full = copy.deepcopy(PROXY_VALUES)
    full["config"] = {"token_timeout": 80, "start_up_timeout": 60.0, "log_format": "text", "drain": "transaction"}
    full["targets"][0] |= {"max_connections": 1000000, "connect_rate": 25, "reuse": True}
    full["targets"][0] |= {"role_map": {"app": "my-app", "1": "one"}}
    config = config_of(check(render(PROXY, full), "pgentra-proxy, many values", mounts))
    numbers = itertools.chain(config.items(), *(target.items() for target in config["target"]))
    floats = [(key, value) for key, value in numbers if isinstance(value, float)]
    assert not floats, f"whole numbers became {floats}"
    assert config["target"][0]["max_connections"] == 1000000, config

    smallest = PROXY_VALUES | {"replicas": 1, "auth": {"secretName": ""}, "tls": {"clientCa": "ca.crt"}}
    smallest |= {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False, "name": "there"}}
    kinds = [document["kind"] for document in check(render(PROXY, smallest), "pgentra-proxy, fewest objects", mounts)]
    assert sorted(kinds) == ["ConfigMap", "Deployment", "Pod", "Service"], kinds

    bare = PROXY_VALUES | {"workloadIdentity": {"enabled": False}}
    for document in check(render(PROXY, bare), "pgentra-proxy, no workload identity", mounts):
        assert "azure.workload.identity" not in json.dumps(document), document
    everything(PROXY, PROXY_VALUES, mounts)

    refused(PROXY, PROXY_VALUES, "replica", lambda values: values.update(replica=3))
    refused(PROXY, PROXY_VALUES, "minAvailable", lambda values: values.update(podDisruptionBudget={"minAvailable": "half"}))
    refused(PROXY, PROXY_VALUES, "extraVolumes", lambda values: values.update(extraVolumes=[{"name": "tls", "emptyDir": {}}]))
    refused(PROXY, PROXY_VALUES, "targets is empty", lambda values: values.update(targets=[]))
    refused(PROXY, PROXY_VALUES, "workloadIdentity.clientId", lambda values: values.update(workloadIdentity={"clientId": ""}))
    refused(PROXY, PROXY_VALUES, "clientId", lambda values: values.update(workloadIdentity={"clientId": "my-app"}))
    refused(PROXY, PROXY_VALUES, "server", lambda values: values.update(targets=[{"port": 5432}]))
    refused(PROXY, PROXY_VALUES, "targets", lambda values: values.update(targets=[{"server": "one", "listen": "0.0.0.0:1"}]))

    with tempfile.TemporaryDirectory() as folder:
        app = pathlib.Path(folder) / "app"
        (app / "templates").mkdir(parents=True)
        dependency = {"name": "pgentra-proxy", "version": "0.1.0", "repository": f"file://{PROXY.resolve()}"}
        about = {"apiVersion": "v2", "name": "app", "version": "0.1.0", "dependencies": [dependency]}
        (app / "Chart.yaml").write_text(yaml.safe_dump(about))
        (app / "templates" / "pod.yaml").write_text(SIDECAR)
        done = run(HELM, "dependency", "update", app)
        if done.returncode != 0:
            sys.exit(f"helm dependency update: {done.stderr}")
        rendered = check(render(app, {"pgentra-proxy": PROXY_VALUES}), "sidecar in another chart", mounts)
        (pod,) = [document for document in rendered if document["metadata"]["name"] == "app"]
        assert pod["spec"]["initContainers"][0]["restartPolicy"] == "Always", pod
        (sidecar,) = pod["spec"].pop("initContainers")
        assert sidecar["args"][-2:] == ["--warm=2", "postgresql://one/"], pod
        pod["metadata"]["annotations"] = {"pgentra.dev/target": "postgresql://one/"}
        (ours,) = injected(pod)["spec"]["initContainers"]
        sidecar["args"].remove("--warm=2")
        assert ours == sidecar, (ours, sidecar)


def local_chart(mounts):
    cluster = {"trustedCluster": {"issuer": "https://issuer.example/", "keys": json.dumps({"keys": []})}}
    lint(LOCAL, cluster)
    values = {key: value for key, value in EVERYTHING.items() if key in yaml.safe_load((LOCAL / "values.yaml").read_text())}
    rendered = check(render(LOCAL, cluster | values | {"hostNames": ["azure.example"]}), "pgentra-local, everything", mounts)
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in rendered}
    pod = by_name["Deployment", "test-pgentra-local"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    for key in ("imagePullSecrets", "nodeSelector", "tolerations"):
        assert pod["spec"][key] == EVERYTHING[key], (key, pod)
    assert EVERYTHING["extraEnv"][0] in container["env"] and EVERYTHING["extraVolumes"][0] in pod["spec"]["volumes"], pod
    assert EVERYTHING["extraVolumeMounts"][0] in container["volumeMounts"], container
    assert EVERYTHING["podLabels"].items() <= pod["metadata"]["labels"].items(), pod
    assert container["args"][-3:] == ["--trust-cluster", "https://issuer.example/", "/etc/pgentra/cluster/keys.json"], container
    names = [word.removeprefix("--host-name=") for word in container["args"] if word.startswith("--host-name=")]
    assert names[0] == "test-pgentra-local" and "test-pgentra-local.default.svc" in names and names[-1] == "azure.example", names
    # Pods trust the very authority that signs.
    trusted = by_name["ConfigMap", "test-pgentra-local-ca"]["data"]["ca.pem"]
    assert trusted == by_name["Secret", "test-pgentra-local-authority"]["stringData"]["tls.crt"], trusted
    given = check(render(LOCAL, {"authority": {"secretName": "pki"}}), "pgentra-local, a given authority", mounts)
    assert sorted(document["kind"] for document in given) == ["Deployment", "NetworkPolicy", "Service"], given
    print("pgentra-local: every value reaches its manifest")

    refused(LOCAL, cluster, "replicas", lambda values: values.update(replicas=2))
    refused(LOCAL, cluster, "trustedCluster.keys", lambda values: values["trustedCluster"].update(keys=""))
    refused(LOCAL, cluster, "flavour", lambda values: values.update(flavour="cosmos"))
    refused(LOCAL, cluster, "port", lambda values: values.update(port=80))


for chart in (PROXY, GATEWAY, OPERATOR, LOCAL):
    values_table(chart)
with tempfile.TemporaryDirectory() as folder:
    mounts = Mounts(folder)
    for manifest in sorted((HERE / "kubernetes").glob("*.yaml")):
        check(manifest.read_text(), manifest.name, mounts)
    injection(mounts)
    mounts.read_by_pgentra(
        "proxy.toml of the service",
        ["proxy", "--config=/etc/pgentra/config/proxy.toml"],
        {"proxy.toml": (HERE / "systemd" / "proxy.toml").read_text()},
    )
    if HELM:
        proxy_chart(mounts)
        gateway_chart(mounts)
        operator_chart(mounts)
        local_chart(mounts)
print(
    f"deploy: {counted['manifests']} manifests are valid for Kubernetes {KUBERNETES}; "
    f"pgentra takes {counted['configurations']} configurations"
)
