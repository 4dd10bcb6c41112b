// Check decodes manifests with Kubernetes' own types, each field of which must be known and there once, and prints what
// their containers run, and how, as JSON. It is a module of its own, so that the product depends on none of Kubernetes.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// A manifest is one document.
type manifest struct {
	Kind, Name string
	Pod        *corev1.PodSpec `json:",omitempty"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, path := range os.Args[1:] {
		if err := check(path, out); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
	}
}

func check(path string, out *json.Encoder) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for r := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data))); ; {
		document, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m, err := decode(document)
		if err != nil {
			return err
		}
		if err := out.Encode(m); err != nil {
			return err
		}
	}
}

// decode reads a document as what it says it is.
func decode(document []byte) (m manifest, err error) {
	var is metav1.TypeMeta
	if err := strict.Unmarshal(document, &is); err != nil {
		return m, err
	}
	into := map[metav1.TypeMeta]metav1.Object{
		{APIVersion: "v1", Kind: "Namespace"}:                       new(corev1.Namespace),
		{APIVersion: "v1", Kind: "Pod"}:                             new(corev1.Pod),
		{APIVersion: "apps/v1", Kind: "DaemonSet"}:                  new(appsv1.DaemonSet),
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}: new(networkingv1.NetworkPolicy),
	}[is]
	if into == nil {
		return m, fmt.Errorf("a %s of %s is not expected", is.Kind, is.APIVersion)
	}
	if err := strict.UnmarshalStrict(document, into); err != nil {
		return m, fmt.Errorf("%s: %w", is.Kind, err)
	}
	m = manifest{Kind: is.Kind, Name: into.GetName()}
	switch o := into.(type) {
	case *corev1.Pod:
		m.Pod = &o.Spec
	case *appsv1.DaemonSet:
		m.Pod = &o.Spec.Template.Spec
		selector, err := metav1.LabelSelectorAsMap(o.Spec.Selector)
		if err != nil {
			return m, err
		}
		for name, value := range selector {
			if o.Spec.Template.Labels[name] != value {
				return m, fmt.Errorf("the DaemonSet selects %s=%s, which its pods do not have", name, value)
			}
		}
	}
	return m, nil
}
