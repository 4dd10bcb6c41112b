//go:build deploy

package deploytest

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestAppArmorProfile: where AppArmor is of version 4 or later, the package puts the profile in its place, its parser takes it, alone and
// among all others, and the profile goes with the package and with a rollback to 0.1.0; an older AppArmor gets none. No kernel enforces it here.
func TestAppArmorProfile(t *testing.T) {
	dist, err := filepath.Abs(filepath.Join(root, "dist"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(kind, script string) string {
		image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh", kind))
		return must(t, "docker", "run", "--rm", "--network", "none", "-v", dist+":/dist:ro", image, "sh", "-ec", script)
	}
	const install = "dpkg -i /dist/shared-altsd_*.deb >/dev/null 2>&1\n"
	out := in("podman", install+`
readlink /etc/apparmor.d/shared-altsd
apparmor_parser --version | head -n1
apparmor_parser -Q -K -N /etc/apparmor.d/shared-altsd
apparmor_parser -Q -K /etc/apparmor.d
compiled() { apparmor_parser -Q -K -S --kernel-features /etc/apparmor.d/abi/4.0 "$1" | cksum; }
grep -v '^  userns,' /etc/apparmor.d/shared-altsd >/tmp/without
[ "$(compiled /etc/apparmor.d/shared-altsd)" = "$(compiled /tmp/without)" ] || echo userns
mkdir -p /etc/apparmor.d/local && echo 'nonsense' >/etc/apparmor.d/local/shared-altsd
apparmor_parser -Q -K /etc/apparmor.d/shared-altsd 2>/dev/null || echo local
rm /etc/apparmor.d/local/shared-altsd
dpkg -r shared-altsd >/dev/null 2>&1
ls /etc/apparmor.d/shared-altsd 2>/dev/null || echo gone
`+install+`sh /var/lib/dpkg/info/shared-altsd.postrm upgrade 99.0.0
readlink /etc/apparmor.d/shared-altsd
sh /var/lib/dpkg/info/shared-altsd.postrm upgrade 0.1.0
readlink /etc/apparmor.d/shared-altsd || echo back
echo '# mine' >/etc/apparmor.d/shared-altsd
`+install+`cat /etc/apparmor.d/shared-altsd`)
	version, rest, _ := strings.Cut(strings.TrimPrefix(out, "/usr/share/shared-altsd/apparmor/shared-altsd\n"), "\n")
	if !strings.HasPrefix(version, "AppArmor parser version 4.") || rest != "shared-altsd\nuserns\nlocal\ngone\n/usr/share/shared-altsd/apparmor/shared-altsd\nback\n# mine\n" {
		t.Errorf("%s", out)
	}
	if out := in("systemd", "mkdir -p /etc/apparmor.d/abi; touch /etc/apparmor.d/abi/3.0\n"+install+"ls /etc/apparmor.d/shared-altsd 2>/dev/null || echo none"); out != "none\n" {
		t.Errorf("with AppArmor 3 there is %s", out)
	}
}
