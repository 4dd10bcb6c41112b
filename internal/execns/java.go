package execns

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// handshakerPattern keeps a JVM's proxy away from the handshaker's name, with the dot that grpc-java asks with and
// without.
const handshakerPattern = handshakerName + "*"

// The JVM's proxies, and its list of exceptions. grpc-java asks the JVM for the proxy of an https URL and takes what it
// gives for an HTTP proxy, one for SOCKS too; the JVM looks into this one list for all of them.
var (
	javaProxies    = []string{"https.proxyHost", "proxyHost", "socksProxyHost", "http.proxyHost"}
	javaExceptions = "http.nonProxyHosts"
)

// javaVariables hold options of JVMs: the first two before those on the command line, the third after them, and the
// last where a start script puts them.
var javaVariables = []string{"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_OPTS"}

// guardJava returns environment and command with the handshaker's name among the exceptions of each proxy that they
// name to a JVM. It fails where there is one that knows no exceptions, or none that could be added to.
func guardJava(env, command []string) (newEnv, newCommand []string, err error) {
	env, command = slices.Clone(env), slices.Clone(command)
	end := javaOptionsEnd(command)
	sources := [][]string{command[:end]}
	var places []int
	for i, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if slices.Contains(javaVariables, name) {
			sources, places = append(sources, splitOptions(value)), append(places, i)
		}
	}
	listed := false // a list somewhere is for the proxies of all
	for _, options := range sources {
		for _, o := range options {
			if err := checkJavaOption(o); err != nil {
				return nil, nil, err
			}
			if name, _ := property(o); name == javaExceptions {
				listed = true
			}
		}
	}
	if end > 0 {
		start := slices.Concat(command[:1], additions(sources[0], listed, false))
		command = slices.Concat(start, completed(command[1:end]), command[end:])
	}
	for i, options := range sources[1:] {
		for _, o := range additions(options, listed, true) {
			if strings.ContainsAny(o, " \t\n'\"") {
				return nil, nil, fmt.Errorf("the variable %s has a list of exceptions from a proxy with spaces or quotes in it: "+
					"add '|%s' to it, for the handshaker must not be asked by way of the proxy", javaVariable(env[places[i]]),
					handshakerPattern)
			}
			env[places[i]] += " " + o
		}
	}
	return env, command, nil
}

func javaVariable(kv string) string {
	name, _, _ := strings.Cut(kv, "=")
	return name
}

// additions returns the options with which options has the exceptions: a list for proxies here, if there is none
// anywhere, and if later ones override earlier ones in this place, the lists that are here, completed.
func additions(options []string, listed, override bool) (more []string) {
	for _, o := range options {
		name, value := property(o)
		switch {
		case slices.Contains(javaProxies, name) && value != "" && !listed:
			// The JVM adds its own exceptions, this machine's names, to any list.
			more = append(more, "-D"+javaExceptions+"="+handshakerPattern)
		case override && name == javaExceptions:
			if whole := complete(o); whole != o {
				more = append(more, whole)
			}
		}
	}
	return slices.Compact(more)
}

// completed returns options with their lists of exceptions completed.
func completed(options []string) []string {
	out := slices.Clone(options)
	for i, o := range out {
		if name, _ := property(o); name == javaExceptions {
			out[i] = complete(o)
		}
	}
	return out
}

// complete adds the handshaker's name to the option -DLIST=VALUE, unless it is there.
func complete(option string) string {
	_, value := property(option)
	if slices.Contains(strings.Split(value, "|"), handshakerPattern) {
		return option
	}
	if value != "" {
		option += "|"
	}
	return option + handshakerPattern
}

// property returns the parts of -DNAME=VALUE.
func property(option string) (name, value string) {
	rest, ok := strings.CutPrefix(option, "-D")
	if !ok {
		return "", ""
	}
	name, value, _ = strings.Cut(rest, "=")
	return name, value
}

// checkJavaOption refuses what leads a JVM to a proxy in a way that no option of ours changes.
func checkJavaOption(option string) error {
	if name, value := property(option); name == "java.net.useSystemProxies" && strings.EqualFold(value, "true") {
		return fmt.Errorf("%s lets the desktop's settings choose a proxy for the handshaker: take it out, and name a proxy "+
			"by -Dhttps.proxyHost", option)
	}
	var file string
	for _, prefix := range []string{"@", "-XX:Flags=", "-XX:VMOptionsFile="} {
		if rest, ok := strings.CutPrefix(option, prefix); ok {
			file = rest
		}
	}
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // Java's to complain of
	}
	for _, word := range []string{"proxyHost", "ProxyHost", "useSystemProxies"} {
		if strings.Contains(string(text), word) && !strings.Contains(string(text), handshakerPattern) {
			return fmt.Errorf("the file of Java options %s has settings of a proxy (%s): add "+
				"-D%s=...|%s there, for the handshaker must not be asked by way of a proxy", file, word, javaExceptions,
				handshakerPattern)
		}
	}
	return nil
}

// javaOptionsEnd returns where the options end of a command that is a JVM, or 0.
func javaOptionsEnd(command []string) int {
	if filepath.Base(command[0]) != "java" {
		return 0
	}
	takesValue := []string{"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path",
		"--add-modules", "--limit-modules", "--enable-native-access", "--add-exports", "--add-opens", "--add-reads",
		"--patch-module", "--source"}
	for i := 1; i < len(command); i++ {
		switch o := command[i]; {
		case o == "-jar" || o == "-m" || o == "--module" || o == "" || o[0] != '-' && o[0] != '@':
			return i
		case slices.Contains(takesValue, o):
			i++
		}
	}
	return len(command)
}

// splitOptions splits the text of a variable as JVMs do: at spaces that are not between quotes.
func splitOptions(text string) (options []string) {
	var option strings.Builder
	var quote rune
	inside := false
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inside = r, true
		case quote == 0 && strings.ContainsRune(" \t\n\r\v\f", r):
			if inside {
				options = append(options, option.String())
			}
			option.Reset()
			inside = false
		default:
			option.WriteRune(r)
			inside = true
		}
	}
	if inside {
		options = append(options, option.String())
	}
	return options
}
