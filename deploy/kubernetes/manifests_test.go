// Package kubernetes_test holds the manifests against Kubernetes' own types and against the program that they run.
package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
	"github.com/shared-altsd/shared-altsd/service"
)

func TestMain(m *testing.M) { os.Exit(testprog.Main(m)) }

// A podManifest is what deploy/kubernetes/check prints of a manifest.
type podManifest struct {
	Kind, Name string
	Pod        *struct {
		AutomountServiceAccountToken, HostNetwork, HostPID, HostIPC, HostUsers *bool
		SecurityContext                                                        struct {
			RunAsUser, RunAsGroup int
			RunAsNonRoot          bool
			SeccompProfile        struct{ Type string }
		}
		Volumes []struct {
			Name     string
			HostPath *struct{ Path, Type string }
		}
		Containers []struct {
			Args            []string
			ReadinessProbe  struct{ Exec struct{ Command []string } }
			VolumeMounts    []struct{ Name, MountPath string }
			SecurityContext struct {
				AllowPrivilegeEscalation, Privileged *bool
				ReadOnlyRootFilesystem               bool
				Capabilities                         struct{ Add, Drop []string }
			}
		}
	}
}

// The manifests of deploy/kubernetes are ones to Kubernetes' own types, confined, and what they run is ours: by flags that
// there are, and with a socket for the very uid of the pod that mounts it.
func TestKubernetes(t *testing.T) {
	manifests, err := filepath.Glob("*.yaml")
	if err != nil || len(manifests) < 2 {
		t.Fatal(manifests, err)
	}
	args := []string{"run", "."}
	for _, path := range manifests {
		args = append(args, filepath.Join("..", filepath.Base(path)))
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = "check"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		said := ""
		if e, ok := err.(*exec.ExitError); ok {
			said = string(e.Stderr)
		}
		t.Fatalf("deploy/kubernetes/check: %v %s", err, said)
	}
	pods := map[string]*podManifest{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		m := new(podManifest)
		if err := d.Decode(m); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if m.Pod != nil {
			pods[m.Kind+" "+m.Name] = m
			checkConfined(t, m)
		}
	}
	daemons, greeter := pods["DaemonSet shared-altsd"], pods["Pod greeter"]
	if daemons == nil || greeter == nil || len(pods) != 2 {
		t.Fatalf("pods: %v", pods)
	}
	nowhere := t.TempDir() + "/nowhere/"
	run := func(want string, args ...string) {
		t.Helper()
		for i := range args {
			args[i] = strings.NewReplacer("/etc/shared-altsd/", nowhere, "/run/shared-altsd/", nowhere).Replace(args[i])
		}
		if code, _, said := testprog.Run(t, args...); code != 1 || !strings.Contains(said, want) {
			t.Errorf("%q: exit status %d: %s", args, code, said)
		}
	}
	daemon, box := daemons.Pod.Containers[0], greeter.Pod.Containers[0]
	sockets := map[string]service.SocketUse{}
	for _, arg := range daemon.Args {
		if socket, ok := strings.CutPrefix(arg, "--socket="); ok {
			path, use, _ := strings.Cut(socket, ",")
			if sockets[path], err = service.ParseSocketUse(use); err != nil {
				t.Errorf("%s: %v", arg, err)
			}
		}
	}
	run("no such file", slices.Clone(daemon.Args)...)
	run("there is no socket", slices.Clone(daemon.ReadinessProbe.Exec.Command[1:])...)
	run("there is no socket", append(slices.Clone(box.Args), "--socket="+nowhere+"socket")...)

	volumes := greeter.Pod.Volumes
	if len(volumes) != 1 || len(box.VolumeMounts) != 1 || box.VolumeMounts[0].MountPath != "/run/shared-altsd" || volumes[0].HostPath == nil {
		t.Fatalf("the pod mounts %+v", volumes)
	}
	use, ok := sockets[volumes[0].HostPath.Path+"/socket"]
	if uid := uint32(greeter.Pod.SecurityContext.RunAsUser); !ok || use.Account == "" || len(use.UIDs) != 1 || use.UIDs[0] != (service.UIDRange{First: uid, Last: uid}) {
		t.Errorf("the pod is uid %d, its socket of %+v", uid, use)
	}
	tmpfiles, err := os.ReadFile("tmpfiles.conf")
	if err != nil {
		t.Fatal(err)
	}
	for path := range sockets {
		for _, line := range []string{"d %s 0755 %d %[2]d\n", "d %s 0700 %d %[2]d\n"} {
			if strings.Contains(string(tmpfiles), fmt.Sprintf(line, filepath.Dir(path), daemons.Pod.SecurityContext.RunAsUser)) {
				ok = false
			}
		}
		if ok {
			t.Errorf("no line of tmpfiles.conf makes the directory of %s", path)
		}
		ok = true
	}
}

// checkConfined checks that a pod has no more of its node than its mounts.
func checkConfined(t *testing.T, m *podManifest) {
	t.Helper()
	p := m.Pod
	if on := p.AutomountServiceAccountToken; on == nil || *on {
		t.Errorf("%s has a token", m.Name)
	}
	if p.HostNetwork != nil || p.HostPID != nil || p.HostIPC != nil || p.HostUsers != nil {
		t.Errorf("%s is in namespaces of its node, or in another one of users", m.Name)
	}
	if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.RunAsUser != s.RunAsGroup || s.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("%s: %+v", m.Name, s)
	}
	for _, c := range p.Containers {
		s := c.SecurityContext
		if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Privileged != nil || !s.ReadOnlyRootFilesystem ||
			s.Capabilities.Add != nil || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s: %+v", m.Name, s)
		}
	}
}
