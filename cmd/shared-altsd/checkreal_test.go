package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// opensslPrelude makes a CA, and functions that make what an administrator has: leaf KEY SAN [EXTENSIONS] writes leaf.pem,
// list [EXTENSIONS] writes list.pem, with a number unless NONUM is set.
const opensslPrelude = `set -e; exec 2>>log; umask 077
ca() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=$1 -keyout $1.key -out $1.pem \
  -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign; }
[ -f root.pem ] || ca root
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem; }
sign() { openssl x509 -req -in csr -CA $1.pem -CAkey $1.key -set_serial 0x$(openssl rand -hex 8) -days 9 -extfile ext -out $2; }
leaf() { openssl req -new -key $1 -subj / -out csr; printf 'subjectAltName=%s\nkeyUsage=critical,digitalSignature\n%b' "$2" "${3:-}" >ext
  sign ${CA:-root} leaf.pem; cat $1 leaf.pem >m.pem; }
list() { printf '[ca]\ndefault_ca=d\n[d]\ndatabase=idx\n%s\ndefault_md=sha256\ndefault_crl_days=7\n%s\n[c]\n%b\n' \
  "${NONUM-crlnumber=num}" "${1:+crl_extensions=c}" "${1:-}" >cnf
  : >idx; echo 01 >num; openssl ca -config cnf -cert root.pem -keyfile root.key -gencrl -out list.pem; }
`

// What openssl makes and we do not take, check says what it is and what to do; what is merely written oddly, it takes.
func TestCheckOpenSSL(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	dir := testprog.Dir(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, script string
		args         string
		code         int
		want         []string
	}{
		{"good", `key; leaf key.pem DNS:a.test`, "", 0, []string{"would accept this machine as a.test", "which is none of the certificate's names", "--machine-name"}},
		{"good, the name is meant", `key; leaf key.pem DNS:a.test`, "--machine-name a.test", 0, []string{"would accept", "!another host"}},
		{"good, this host's", `key; leaf key.pem DNS:` + strings.ToLower(host) + `.test,DNS:` + strings.ToLower(host), "--machine-name " + strings.ToLower(host), 0, []string{"would accept", "!another host"}},
		{"explicit parameters", `openssl ecparam -name prime256v1 -genkey -param_enc explicit -noout -out key.pem; leaf key.pem DNS:a.test`, "", 1, []string{"explicit parameters", "openssl genpkey"}},
		{"explicit parameters, PKCS #8", `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit -out key.pem; leaf key.pem DNS:a.test`, "", 1, []string{"explicit parameters", "openssl genpkey"}},
		{"secp256k1", `openssl ecparam -name secp256k1 -genkey -noout -out key.pem; leaf key.pem DNS:a.test`, "", 1, []string{"curve secp256k1", "openssl genpkey"}},
		{"brainpool", `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1 -out key.pem; leaf key.pem DNS:a.test`, "", 1, []string{"curve brainpoolP256r1", "openssl genpkey"}},
		{"Ed448", `openssl genpkey -algorithm ED448 -out key.pem; leaf key.pem DNS:a.test`, "", 1, []string{"an Ed448 key", "openssl genpkey"}},
		{"RSA-PSS", `openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out key.pem; leaf key.pem DNS:a.test`, "", 1, []string{"RSASSA-PSS", "openssl genpkey"}},
		{"DSA", `openssl dsaparam -genkey -noout -out key.pem 1024; leaf key.pem DNS:a.test`, "", 1, []string{"a DSA key", "openssl genpkey"}},
		{"RSA of 512 bits", `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:512 -out key.pem; openssl rsa -traditional -in key.pem -out m.pem; cat leaf.pem >>m.pem`, "", 1, []string{"RSA key of 512 bits", "openssl genpkey"}},
		{"certificate of brainpool alone", `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1 -out key.pem; leaf key.pem DNS:a.test; cp leaf.pem m.pem`, "", 1, []string{"certificate 1 of the machine has an EC key on the curve brainpoolP256r1"}},
		{"PKCS #12", `key; leaf key.pem DNS:a.test; openssl pkcs12 -export -in m.pem -passout pass:x -out p; mv p m.pem`, "", 1, []string{"PKCS #12", "openssl pkcs12 -in FILE -nodes -out NEW"}},
		{"PKCS #7", `key; leaf key.pem DNS:a.test; openssl crl2pkcs7 -nocrl -certfile leaf.pem -outform DER -out m.pem`, "", 1, []string{"PKCS #7", "-print_certs"}},
		{"a certificate in DER", `key; leaf key.pem DNS:a.test; openssl x509 -in leaf.pem -outform DER -out m.pem`, "", 1, []string{"openssl x509 -inform DER"}},
		{"a key in DER", `key; leaf key.pem DNS:a.test; cp leaf.pem m.pem; openssl pkey -in key.pem -outform DER -out key.der`, "--key key.der", 1, []string{"private key in DER", "openssl pkey -inform DER"}},
		{"an old key in DER", `key; leaf key.pem DNS:a.test; cp leaf.pem m.pem; openssl ec -in key.pem -outform DER -out key.der`, "--key key.der", 1, []string{"private key in DER"}},
		{"a request in DER", `key; leaf key.pem DNS:a.test; openssl req -in csr -outform DER -out m.pem`, "", 1, []string{"CERTIFICATE REQUEST"}},
		{"joined without a line break", `key; leaf key.pem DNS:a.test; printf '%s%s\n' "$(cat key.pem)" "$(cat leaf.pem)" >m.pem`, "", 1, []string{"END line", "sed"}},
		{"UTF-16", `key; leaf key.pem DNS:a.test; iconv -f ASCII -t UTF-16 m.pem >u; mv u m.pem`, "", 1, []string{"UTF-16", "iconv"}},
		{"byte order mark", `key; leaf key.pem DNS:a.test; (printf '\357\273\277'; cat m.pem) >u; mv u m.pem`, "", 0, []string{"would accept"}},
		{"trusted form", `key; leaf key.pem DNS:a.test; openssl x509 -in leaf.pem -trustout >u; cat key.pem u >m.pem`, "", 1, []string{"TRUSTED CERTIFICATE", "openssl x509 -in"}},
		{"names that cannot be used", `key; leaf key.pem DNS:a_b.test,DNS:c.test.,DNS:` + strings.Repeat("d", 64) + `.test`, "", 1, []string{`"a_b.test" (a machine name may hold only`, `"c.test." (a machine name has no dot at its end)`, "label of 64 bytes"}},
		{"a common name alone", `key; openssl req -new -key key.pem -subj /CN=a.test -out csr; echo keyUsage=digitalSignature >ext; sign root leaf.pem; cat key.pem leaf.pem >m.pem`, "", 1, []string{`"a.test", does not count`}},
		{"600 names", `key; leaf key.pem "$(seq -f 'DNS:a%04g.department.example.com' -s, 600)"`, "", 1, []string{"600 names", "fewer names"}},
		{"unknown critical extension", `key; leaf key.pem DNS:a.test 1.2.3.4.5=critical,DER:05:00`, "", 1, []string{"1.2.3.4.5 in certificate 1"}},
		{"cross-signed, both sent", `ca other; key
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=int -keyout int.key -out csr
printf 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n' >ext; sign root int.pem; sign other intx.pem
CA=int leaf key.pem DNS:a.test; cat intx.pem int.pem >>m.pem`, "", 0, []string{"would accept", "!not sent"}},
		{"cross-signed, a peer of the other", `true`, "--ca other.pem", 0, []string{"would accept"}},
		{"one that issued nobody", `key; leaf key.pem DNS:a.test; cat int.pem >>m.pem`, "", 0, []string{"warning   not sent to peers: 1 certificates", "CN=int", "would accept"}},
		{"list of version 1", `key; leaf key.pem DNS:a.test; NONUM= list; openssl crl -in list.pem -noout -text | grep -q 'Version 1'`, "--crl list.pem", 1, []string{"version 1", "crlnumber"}},
		{"list with a place, as step-ca's", `list 'issuingDistributionPoint=critical,@i\n[i]\nfullname=URI:http://ca.test/crl'`, "--crl list.pem", 1, []string{"fault", "at http://ca.test/crl", "(--crl complete=FILE)"}},
		{"said to be complete", `true`, "--crl complete=list.pem", 0, []string{"would accept"}},
		{"the certificate names the place", `leaf key.pem DNS:a.test crlDistributionPoints=URI:http://ca.test/crl`, "--crl list.pem", 0, []string{"would accept"}},
		{"another place", `leaf key.pem DNS:a.test crlDistributionPoints=URI:http://ca.test/crl2`, "--crl list.pem", 1, []string{"fault", "--crl complete=FILE"}},
		{"list for users", `list 'issuingDistributionPoint=critical,@i\n[i]\nonlyuser=TRUE'`, "--crl list.pem", 0, []string{"would accept"}},
		{"list for CAs", `list 'issuingDistributionPoint=critical,@i\n[i]\nonlyCA=TRUE'`, "--crl list.pem", 1, []string{"for CA certificates", "(--crl)"}},
		{"indirect list", `list 'issuingDistributionPoint=critical,@i\n[i]\nindirectCRL=TRUE'`, "--crl list.pem", 1, []string{"indirect"}},
		{"list by reasons", `list 'issuingDistributionPoint=critical,@i\n[i]\nonlysomereasons=keyCompromise'`, "--crl list.pem", 1, []string{"some reasons"}},
		{"a certificate as list", `true`, "--crl root.pem", 1, []string{"it holds a CERTIFICATE"}},
		{"a list as CA", `true`, "--ca list.pem", 1, []string{"revocation list"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "bash", "-c", opensslPrelude+tt.script)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				log, _ := os.ReadFile(filepath.Join(dir, "log"))
				t.Fatalf("%v: %s%s", err, out, log)
			}
			args := []string{"check", "--credentials", filepath.Join(dir, "m.pem")}
			if !strings.Contains(tt.args, "--ca ") {
				args = append(args, "--ca", filepath.Join(dir, "root.pem"))
			}
			for _, a := range strings.Fields(tt.args) {
				if file, complete := strings.CutPrefix(a, "complete="); complete {
					a = "complete=" + filepath.Join(dir, file)
				} else if strings.Contains(a, ".pem") || strings.Contains(a, ".der") {
					a = filepath.Join(dir, a)
				}
				args = append(args, a)
			}
			code, stdout, stderr := altsd(t, args...)
			said := stdout + stderr
			ok := code == tt.code
			for _, want := range tt.want {
				unwanted, not := strings.CutPrefix(want, "!")
				ok = ok && strings.Contains(said, unwanted) != not
			}
			if !ok {
				t.Errorf("exit status %d, want %d and %q:\n%s", code, tt.code, tt.want, said)
			}
		})
	}
}
