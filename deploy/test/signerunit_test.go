//go:build deploy

package deploytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// signerManager boots systemd in namespaces of its own, with copies of /etc and of the control groups' tree, with the signer's units
// and a token of SoftHSM, as docs/hardware.md has it, and prints what becomes of it.
const signerManager = `
mount --make-rprivate / && mount --make-rshared /
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd /run/lock /run/units /run/softhsm/tokens
cp -a /etc /run/etc && mount --bind /run/etc /etc && rm -rf /etc/systemd/system/* && mkdir -p /etc/shared-altsd
cp $PROGRAM /run/shared-altsd-signer.program
for unit in service socket; do
	sed 's#/usr/bin/shared-altsd-signer#/run/shared-altsd-signer.program#' deploy/systemd/shared-altsd-signer.$unit >/run/units/shared-altsd-signer.$unit
done
mkdir /run/units/shared-altsd-signer.service.d
printf '[Service]\nLoadCredential=pin:/etc/shared-altsd/signer.pin\nReadWritePaths=/run/softhsm/tokens\n' >/run/units/shared-altsd-signer.service.d/hardware.conf
printf '[Service]\nEnvironment=SOFTHSM2_CONF=%s\nStandardError=file:/run/signer.log\n' $SOFTHSM2_CONF >/run/units/shared-altsd-signer.service.d/test.conf
for t in signer sysinit basic sockets shutdown umount time-sync; do printf '[Unit]\nDefaultDependencies=no\n' >/run/units/$t.target; done
systemd-sysusers $PWD/deploy/systemd/shared-altsd.sysusers $PWD/deploy/systemd/shared-altsd-signer.sysusers

printf 'directories.tokendir = /run/softhsm/tokens\nobjectstore.backend = file\n' >$SOFTHSM2_CONF
softhsm2-util --init-token --free --label machine --so-pin 87654321 --pin 1234
pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label machine --login --pin 1234 --keypairgen --key-type EC:prime256v1 --label machine-key --id 01 --usage-sign
chown -R shared-altsd-signer: /run/softhsm/tokens
(umask 077 && echo 1234 >/etc/shared-altsd/signer.pin)
cat >/etc/shared-altsd/signer.conf <<'EOF'
key          = pkcs11:token=machine;object=machine-key;type=private?module-path=/usr/lib/softhsm/libsofthsm2.so
certificates = /etc/shared-altsd/machine.pem
client       = shared-altsd
EOF
cd /etc/shared-altsd
$PROGRAM request --config signer.conf --pin-file signer.pin alpha.example.com >/run/machine.csr
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /run/ca.key -out /run/ca.pem -subj /CN=ca 2>/dev/null
openssl x509 -req -in /run/machine.csr -CA /run/ca.pem -CAkey /run/ca.key -copy_extensions copyall -out machine.pem 2>/dev/null
chmod 0644 machine.pem

for h in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
	if [ -e $h/cgroup.procs ] && mkdir $h/$GROUP; then echo $$ >$h/$GROUP/cgroup.procs; fi
done
cat >/run/look <<'EOF'
while ! systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; do sleep 0.2; done
systemctl start shared-altsd-signer.socket shared-altsd-signer.service
pid=$(systemctl show -p MainPID --value shared-altsd-signer.service)
systemctl show -p ActiveState -p StatusText shared-altsd-signer.service
stat -c 'socket %U %G %a' /run/shared-altsd-signer/socket
stat -c 'runs as %U' /proc/$pid
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$pid/status
cat /run/signer.log
systemctl stop shared-altsd-signer.socket shared-altsd-signer.service
systemctl show -p ActiveState -p Result shared-altsd-signer.service

EOF
exec unshare -C -p -f --kill-child --mount-proc --propagation shared bash -c '
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
export container=test SYSTEMD_UNIT_PATH=/run/units
bash /run/look >&3 2>&1 &
for s in /usr/lib/systemd/systemd /lib/systemd/systemd; do [ ! -x $s ] || manager=$s; done
exec $manager --system --unit=signer.target --log-target=console --log-level=warning --show-status=0'
`

// TestUnitsSigner: under a real systemd the signer's unit, hardened as it is, has the PIN by LoadCredential=, and signs by a module in C.
func TestUnitsSigner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make namespaces and run a system manager")
	}
	program, err := filepath.Abs(filepath.Join(root, "dist/root/shared-altsd-signer"))
	if err != nil {
		t.Fatal(err)
	}
	said, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("unshare", "-m", "-u", "-i", "-n", "-p", "-f", "--kill-child", "--mount-proc", "bash", "-c", signerManager)
	cmd.Dir = root
	group := fmt.Sprintf("altsd-signer-%d", os.Getpid())
	t.Cleanup(func() { // from below, once all of its processes have ended
		command("sh", "-c", "for h in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do find $h/"+group+" -depth -type d -exec rmdir {} +; done")
	})
	cmd.Env = append(os.Environ(), "PROGRAM="+program, "SOFTHSM2_CONF=/run/softhsm/softhsm2.conf", "GROUP="+group)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &log, &log, []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var out strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := said.Read(buffer)
		out.Write(buffer[:n])
		if err != nil || strings.Contains(out.String(), "Result=") {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, want := range []string{"ActiveState=active", "StatusText=Signing", "socket root shared-altsd 660", "runs as shared-altsd-signer",
		"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "the key is open", "ActiveState=inactive", "Result=success"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if t.Failed() {
		t.Logf("on the way:\n%s", &log)
	}
}
