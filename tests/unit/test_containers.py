"""What runs in a container is closed: compose file, image and Kubernetes example say so at every place, and the
settings in them are settings. There is no container engine in here: what an engine makes of it is not tested."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cancelq_worker.health_http import PATHS
from cancelq_worker.settings import Settings

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "ops" / "kubernetes"
PROMETHEUS = ROOT / "ops" / "prometheus"
OURS = ("worker", "jobs", "operator", "simulator")


def documents(file: Path) -> Iterator[dict[str, Any]]:
    yield from (document for document in YAML(typ="safe").load_all(file.read_text()) if document)


(COMPOSE,) = documents(ROOT / "ops" / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS = [document for file in sorted(KUBERNETES.glob("*.yaml")) for document in documents(file)]
DEPLOYMENTS = [one for one in MANIFESTS if one["kind"] == "Deployment"]


class TestCompose:
    @pytest.mark.parametrize("name", SERVICES)
    def test_no_service_is_root_or_can_become_more_than_it_is(self, name: str) -> None:
        service = SERVICES[name]
        default = re.fullmatch(r"\$\{CANCELQ_USER:-(\d+):(\d+)\}", service["user"])
        assert default
        assert int(default[1]) > 0
        assert int(default[2]) > 0
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert "privileged" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["ulimits"]["core"] == 0
        assert all("noexec" in mount and "nosuid" in mount for mount in service["tmpfs"])

    @pytest.mark.parametrize("name", SERVICES)
    def test_every_service_has_its_limits(self, name: str) -> None:
        limits = SERVICES[name]["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}
        assert SERVICES[name]["logging"]["options"]["max-size"]

    @pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("jobs", "operator")])
    def test_what_listens_is_looked_at(self, name: str) -> None:
        assert SERVICES[name]["healthcheck"]["test"]

    def test_secrets_are_files_and_only_workers_have_keys(self) -> None:
        named = set(COMPOSE["secrets"])
        assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
        keys = {"api_key", "api_secret", "passphrase"}
        used = {name: {_source(s) for s in service.get("secrets", [])} for name, service in SERVICES.items()}
        assert set.union(*used.values()) == named
        assert [name for name, of in used.items() if of & keys] == ["worker"]
        variables = [v for service in SERVICES.values() for v in service.get("environment", {})]
        assert not [v for v in variables if re.search("KEY|SECRET$|PASSPHRASE|PASSWORD|REDIS_URL", v)]

    def test_no_port_is_open_to_the_machine_and_the_network_leads_nowhere(self) -> None:
        assert not [name for name, service in SERVICES.items() if "ports" in service]
        assert COMPOSE["networks"] == {"inside": {"internal": True}}

    @pytest.mark.parametrize("name", ["worker", "jobs", "operator"])
    def test_its_settings_are_settings(self, name: str, tmp_path: Path) -> None:
        for secret in SERVICES[name]["secrets"]:
            file = tmp_path / secret["target"]
            file.touch(mode=0o600)
            file.write_text("redis://worker:pw@server:6379/0" if "redis" in secret["target"] else "a-secret")
        environment = {k: re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(v)) for k, v in SERVICES[name]["environment"].items()}
        settings = Settings.load(
            None, {**environment, "CANCELQ_SECRETS_DIR": str(tmp_path)}, need_keys=name == "worker"
        )
        assert [str(lane) for lane in settings.lanes] == ["bitget:main"]
        assert settings.redis_url == "redis://worker:pw@server:6379/0"


class TestImage:
    text = (ROOT / "Dockerfile").read_text()

    def test_it_runs_as_a_number_that_is_not_root(self) -> None:
        *_, last = re.findall(r"^USER (.*)$", self.text, re.MULTILINE)
        assert last == "10001:10001"
        assert self.text.index(f"USER {last}") < self.text.index("ENTRYPOINT")

    def test_no_secret_is_asked_for_while_it_is_made(self) -> None:
        assert not re.search(r"^(?:ARG|ENV).*(?:KEY|SECRET|PASS|TOKEN)", self.text, re.MULTILINE)

    def test_it_is_made_from_what_it_needs_alone(self) -> None:
        allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        assert allowed == [
            "!pyproject.toml",
            "!requirements/run.txt",
            "!requirements/build.txt",
            "!producers/",
            "!worker/",
        ]


class TestKubernetes:
    def test_every_file_is_part_of_it_but_those_that_need_more(self) -> None:
        (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
        there = {file.name for file in KUBERNETES.glob("*.yaml")}
        assert set(kustomization["resources"]) == there - {"kustomization.yaml", "keda.yaml", "monitor.yaml"}

    def test_the_namespace_lets_nothing_else_in(self) -> None:
        (namespace,) = (one for one in MANIFESTS if one["kind"] == "Namespace")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"

    @pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
    def test_pods_keep_the_restricted_standard_and_more(self, deployment: dict[str, Any]) -> None:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 10_001, "runAsGroup": 10_001, "fsGroup": 10_001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
            assert container["resources"]["limits"]["memory"]
            assert not [v for v in container["env"] if "valueFrom" in v or re.search("KEY|SECRET|PASS|URL", v["name"])]
            assert all(m.get("readOnly") for m in container["volumeMounts"] if m["name"] != "tmp")
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["secrets"]["secret"]["defaultMode"] == 0o400
        assert "hostPath" not in str(volumes)

    @pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
    def test_labels_agree(self, deployment: dict[str, Any]) -> None:
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        named = deployment["metadata"]["name"]
        for kind in ("PodDisruptionBudget", "Service", "NetworkPolicy"):
            for one in MANIFESTS:
                if one["kind"] == kind and one["metadata"]["name"] == named:
                    selector = one["spec"].get("podSelector") or one["spec"]["selector"]
                    assert selector.get("matchLabels", selector).items() <= labels.items()

    def test_workers_are_asked_at_the_paths_there_are_and_only_readiness_minds_redis(self) -> None:
        (worker,) = (one for one in DEPLOYMENTS if one["metadata"]["name"] == "cancelq-worker")
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
        assert probes == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        assert set(probes.values()) <= set(PATHS)
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"metrics": 9464}
        assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 10

    def test_two_workers_and_never_none(self) -> None:
        (worker,) = (one for one in DEPLOYMENTS if one["metadata"]["name"] == "cancelq-worker")
        (budget,) = (one for one in MANIFESTS if one["kind"] == "PodDisruptionBudget")
        (scaled,) = (one for one in MANIFESTS if one["kind"] == "ScaledObject")
        assert worker["spec"]["replicas"] > budget["spec"]["minAvailable"] >= 1
        assert scaled["spec"]["minReplicaCount"] >= 1
        assert "cancelq_lane_oldest_age_seconds" in scaled["spec"]["triggers"][0]["metadata"]["query"]
        assert "cancelq_lane_oldest_age_seconds" in (ROOT / "docs" / "METRICS.md").read_text()

    def test_workers_are_scraped_as_the_job_that_the_alerts_ask_for(self) -> None:
        (monitor,) = (one for one in MANIFESTS if one["kind"] == "ServiceMonitor")
        (chosen,) = (
            one
            for one in MANIFESTS
            if one["kind"] == "Service"
            and monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
        )
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in chosen["spec"]["ports"]}
        assert endpoint["path"] in PATHS
        ((scraped,),) = (one["scrape_configs"] for one in documents(PROMETHEUS / "prometheus.yml"))
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": scraped["job_name"]}]
        asked = re.findall(r'job=~?"(.*?)"', (PROMETHEUS / "alerts.yml").read_text())
        assert asked
        assert all(re.fullmatch(job, scraped["job_name"]) for job in asked)
        assert monitor["metadata"]["namespace"] == "cancelq"

    def test_only_the_worker_s_secret_holds_keys(self) -> None:
        mounted = {
            one["metadata"]["name"]: volume["secret"]["secretName"]
            for one in DEPLOYMENTS
            for volume in one["spec"]["template"]["spec"]["volumes"]
            if "secret" in volume
        }
        assert mounted == {"cancelq-worker": "cancelq-worker", "cancelq-jobs": "cancelq-jobs"}

    def test_everything_is_closed_first(self) -> None:
        policies = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "NetworkPolicy"}
        assert policies["cancelq-nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        (outside,) = policies["cancelq-worker"]["egress"]
        assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]

    @pytest.mark.parametrize("name", ["cancelq-worker", "cancelq-jobs"])
    def test_its_settings_are_settings(self, name: str, tmp_path: Path) -> None:
        (config,) = (one for one in MANIFESTS if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name)
        file = tmp_path / "cancelq.toml"
        file.write_text(config["data"]["cancelq.toml"].replace("/run/secrets/cancelq", str(tmp_path)))
        settings = Settings.load(file, {}, need_keys=False)
        assert [str(lane) for lane in settings.lanes] == ["bitget:main"]
        assert not re.search("api_key|api_secret|passphrase|redis_url", config["data"]["cancelq.toml"])


def _source(secret: str | dict[str, str]) -> str:
    return secret if isinstance(secret, str) else secret["source"]
