package packs.net_test

import data.packs.net
import rego.v1

pod(spec) := {"kind": "Pod", "metadata": {"name": "web"}, "spec": spec}

test_plain_pod_is_fine if {
	count(net.deny) == 0 with input as pod({"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]})
}

test_host_network_is_refused if {
	net.deny["web uses the network of its host"] with input as pod({"hostNetwork": true, "containers": []})
}

test_privileged_port_is_refused if {
	net.deny["web/app listens on the privileged port 80"] with input as pod({"containers": [{
		"name": "app",
		"ports": [{"containerPort": 80}],
	}]})
}

test_public_service_needs_a_reason if {
	service := {"kind": "Service", "metadata": {"name": "shop"}, "spec": {"type": "LoadBalancer"}}
	count(net.deny) == 1 with input as service
	count(net.deny) == 0 with input as object.union(service, {"metadata": {"annotations": {net.reason: "it is the shop"}}})
}
