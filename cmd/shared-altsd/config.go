package main

import (
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
)

// checkConfig is the config file of check, which knows where the packages have theirs.
func checkConfig() *cli.ConfigFile {
	c := configFile("Configuration:")
	c.Default = func(given func(name string) bool) *cli.Defaults {
		if (given("policy") || given("denied")) && !given("credentials") && !given("ca") {
			return nil // rules alone, as in CI
		}
		return packageDefaults(given)
	}
	return c
}

// configFile is the config file, which serve and check read; group is where their help has --config.
func configFile(group string) *cli.ConfigFile {
	return &cli.ConfigFile{
		Group:   group,
		Help:    "Read flags of serve from FILE as well: lines 'name = value', '#' comments. The command line wins.",
		Options: func() []cli.Option { return new(serveConfig).options() },
		Read:    daemon.ReadConfigFile,
	}
}
