package connect

import (
	"errors"
	"os"
	"syscall"

	"github.com/shared-altsd/shared-altsd/internal/standin"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

// Run serves one command, which runs in its place, until that ends, and returns the command's exit status. If a signal
// ended it, Run ends this process by the same one.
func (c *Config) Run(command []string) (status int, err error) {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return 0, errors.New("real and effective account differ: connect is not for setuid programs")
	}
	if err := c.probe(); err != nil {
		return 0, err
	}
	// From here on a signal is the command's to obey, so that none ends this process with the directory still there.
	signals := make(chan os.Signal, 64)
	standin.Notify(signals)
	giveBack := standin.KeepTerminal()
	ended, err := c.serveCommand(command, signals)
	if err != nil {
		return 0, err
	}
	giveBack()
	return standin.ExitLike(ended), nil
}

// serveCommand serves in a private directory until the command has ended.
func (c *Config) serveCommand(command []string, signals <-chan os.Signal) (ended syscall.WaitStatus, err error) {
	dir, err := makePrivate()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) // the command may have left something there
	s, err := c.newServer(dir)
	if err != nil {
		return 0, err
	}
	defer s.close()
	env, err := environment(os.Environ(), c.Setenv, dir, s.places.port)
	if err != nil {
		return 0, err
	}
	child, err := standin.Start(command, env)
	if err != nil {
		return 0, err
	}
	stops := make(chan os.Signal, cap(signals))
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.run(stops, new(systemd.Notifier))
	}()
	over := make(chan struct{})
	go standin.PassOn(signals, child, over)
	ended, err = child.Wait()
	close(over)
	s.places.accepted()
	stops <- syscall.SIGTERM
	go func() {
		for s := range signals { // while the last bytes are on their way
			stops <- s
		}
	}()
	<-served
	return ended, err
}
