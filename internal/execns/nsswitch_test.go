package execns

import "testing"

func TestNsswitch(t *testing.T) {
	for before, after := range map[string]string{
		"hosts: files dns\n": "hosts: files dns\n",
		"":                   "hosts: files dns\n",
		"passwd: files":      "passwd: files\nhosts: files dns\n",
		"passwd: files\n\thosts:mymachines resolve [!UNAVAIL=return] files myhostname dns # why\ngroup: files\n": "passwd: files\n" +
			"hosts: files mymachines resolve [!UNAVAIL=return] myhostname dns\ngroup: files\n",
		"hosts: dns files [NOTFOUND=return] x\nhosts: dns\n#hosts: a\n": "hosts: files dns x\n#hosts: a\n",
		"hosts: files [ NOTFOUND=return ] dns":                          "hosts: files [ NOTFOUND=return ] dns\n",
		"hosts: files [SUCCESS=continue] dns":                           "hosts: files dns\n",
		"hosts: files [!NOTFOUND=Merge] [UNAVAIL=return] dns files":     "hosts: files [UNAVAIL=return] dns\n",
		"hosts: dns [SUCCESS=continue] files\n":                         "hosts: files dns [SUCCESS=continue]\n",
		"hosts:\n":                                                      "hosts: files\n",
	} {
		got := string(nsswitchWith([]byte(before)))
		if got != after {
			t.Errorf("%q becomes %q, not %q", before, got, after)
		}
		if !isFilesFirst([]byte(got)) {
			t.Errorf("%q is not good enough for --prepared", got)
		}
	}
	for _, bad := range []string{"", "hosts: dns files", "hosts: resolve [!UNAVAIL=return] files", "hosts:", "passwd: files",
		"hosts: files [SUCCESS=continue] dns", "hosts: files dns\nhosts: dns files\n", "#hosts: files"} {
		if isFilesFirst([]byte(bad)) {
			t.Errorf("%q is good enough for --prepared", bad)
		}
	}
}
