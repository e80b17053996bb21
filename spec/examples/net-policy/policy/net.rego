# What a workload may expose to a network. Input: a Kubernetes Pod or Service.
package packs.net

import rego.v1

# A listener on all addresses needs this annotation, with a reason in words.
reason := "packs.example/public-because"

deny contains message if {
	input.kind == "Pod"
	input.spec.hostNetwork
	message := sprintf("%s uses the network of its host", [input.metadata.name])
}

deny contains message if {
	input.kind == "Pod"
	some container in input.spec.containers
	some port in container.ports
	port.containerPort < 1024
	message := sprintf("%s/%s listens on the privileged port %d", [input.metadata.name, container.name, port.containerPort])
}

deny contains message if {
	input.kind == "Service"
	input.spec.type in {"LoadBalancer", "NodePort"}
	object.get(input.metadata, ["annotations", reason], "") == ""
	message := sprintf("%s is public; say why in the annotation %s", [input.metadata.name, reason])
}
