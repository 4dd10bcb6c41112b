package execns

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestJava(t *testing.T) {
	const ours = "-Dhttp.nonProxyHosts=metadata.google.internal*"
	for _, c := range []struct{ env, command, wantEnv, wantCommand string }{
		{"A=b", "java -jar a.jar", "A=b", "java -jar a.jar"},
		{"JAVA_TOOL_OPTIONS=-Xmx1g", "python3 x", "JAVA_TOOL_OPTIONS=-Xmx1g", "python3 x"},
		// A proxy without exceptions.
		{"JAVA_TOOL_OPTIONS=-Dhttps.proxyHost=p -Dhttps.proxyPort=1", "x",
			"JAVA_TOOL_OPTIONS=-Dhttps.proxyHost=p -Dhttps.proxyPort=1 " + ours, "x"},
		{"_JAVA_OPTIONS='-Dhttps.proxyHost=p'", "x", "_JAVA_OPTIONS='-Dhttps.proxyHost=p' " + ours, "x"},
		{"JDK_JAVA_OPTIONS=-DsocksProxyHost=p", "x",
			"JDK_JAVA_OPTIONS=-DsocksProxyHost=p " + ours, "x"},
		{"JAVA_OPTS=-DproxyHost=p", "x", "JAVA_OPTS=-DproxyHost=p " + ours, "x"},
		{"JAVA_OPTS=-DproxyHost=", "x", "JAVA_OPTS=-DproxyHost=", "x"},
		{"A=b", "/opt/jdk/bin/java -cp a:b -Dhttps.proxyHost=p Main -Dhttps.proxyHost=q", "A=b",
			"/opt/jdk/bin/java " + ours + " -cp a:b -Dhttps.proxyHost=p Main -Dhttps.proxyHost=q"},
		// Exceptions: every list is completed, wherever the proxy is named; the last one of a place counts.
		{"JAVA_TOOL_OPTIONS=-Dhttp.nonProxyHosts=a|b -Dx=y", "java -Dhttps.proxyHost=p -jar a.jar",
			"JAVA_TOOL_OPTIONS=-Dhttp.nonProxyHosts=a|b -Dx=y -Dhttp.nonProxyHosts=a|b|metadata.google.internal*",
			"java -Dhttps.proxyHost=p -jar a.jar"},
		{"_JAVA_OPTIONS=-Dhttps.proxyHost=p", "java -Dhttp.nonProxyHosts=*.x -Dhttp.nonProxyHosts= Main -Dhttp.nonProxyHosts=y",
			"_JAVA_OPTIONS=-Dhttps.proxyHost=p", "java -Dhttp.nonProxyHosts=*.x|metadata.google.internal* " + ours +
				" Main -Dhttp.nonProxyHosts=y"},
		{"JAVA_TOOL_OPTIONS=-Dhttps.proxyHost=p " + ours, "x", "JAVA_TOOL_OPTIONS=-Dhttps.proxyHost=p " + ours, "x"},
		{"A=b", "javac -Dhttps.proxyHost=p", "A=b", "javac -Dhttps.proxyHost=p"},
	} {
		env, command, err := guardJava([]string{c.env}, strings.Fields(c.command))
		if err != nil || env[0] != c.wantEnv || strings.Join(command, " ") != c.wantCommand {
			t.Errorf("%s %s: %q %q %v", c.env, c.command, env, command, err)
		}
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := file("bad", "-Dhttps.proxyHost=p\n")
	for _, good := range []string{file("plain", "-Xmx1g\n"), file("good", "-Dhttps.proxyHost=p\n"+ours), dir + "/none"} {
		if _, _, err := guardJava(nil, []string{"java", "@" + good, "Main", "@" + bad}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, c := range []struct{ env, option, text string }{
		{"", "-Djava.net.useSystemProxies=true", "-Dhttps.proxyHost"},
		{"JAVA_TOOL_OPTIONS=-Djava.net.useSystemProxies=true", "-x", "-Dhttps.proxyHost"},
		{"", "@" + bad, "nonProxyHosts"}, {"", "-XX:VMOptionsFile=" + bad, "nonProxyHosts"},
		{"JDK_JAVA_OPTIONS=@" + bad, "-x", "nonProxyHosts"},
		{"JAVA_OPTS=-Dhttp.nonProxyHosts='a b'", "-x", "JAVA_OPTS"},
	} {
		if _, _, err := guardJava([]string{c.env}, []string{"java", c.option}); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s %s: %v", c.env, c.option, err)
		}
	}
	if got := splitOptions(` -a  "-b c" -d'e f'"g" ''`); !slices.Equal(got, []string{"-a", "-b c", "-de fg", ""}) {
		t.Errorf("%q", got)
	}
}
