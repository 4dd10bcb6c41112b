package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/version"
	"github.com/shared-altsd/shared-altsd/service"
)

// newLogger returns the daemon's log, which goes to f.
func newLogger(f *os.File, level slog.Level, json bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	return slog.New(systemd.NewHandler(f, func(w io.Writer) slog.Handler {
		if json {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}))
}

// logStart logs what the daemon starts with, and what is wrong with it.
func (d *Daemon) logStart(l *loaded) {
	for _, w := range l.warnings {
		d.log.Warn("warning", "what", w)
	}
	var paths, cas []string
	for _, s := range d.sockets.local {
		paths = append(paths, s.Path)
		for _, w := range s.Warnings {
			d.log.Warn("warning", "what", w)
		}
	}
	for _, ca := range d.config.Files.CAs {
		names := ""
		if len(ca.Names) > 0 {
			names = strings.Join(ca.Names, ",") + "="
		}
		cas = append(cas, names+ca.File)
	}
	d.log.Info("shared-altsd starts", append([]any{"version", version.Number()}, append(credentialAttrs(l),
		"sockets", strings.Join(paths, " "), "cas", strings.Join(cas, " "), "users", service.AccountSource)...)...)
	logFaults(d.log, l)
	for _, f := range purposeFault(l.credential, l.trust) {
		d.log.Warn("warning", "what", f.What, "cure", f.Cure)
	}
}

// credentialAttrs returns what the log says of a certificate.
func credentialAttrs(l *loaded) []any {
	leaf := l.credential.Leaf
	return []any{"machine", l.name, "serial", fmt.Sprintf("%x", leaf.SerialNumber), "expires",
		leaf.NotAfter.UTC().Format(time.RFC3339)}
}

// logFaults says at once what peers will say later; what ends soon is the announcer's part. The daemon runs all the
// same: the clock may be set, or the files mended, while it does.
func logFaults(log *slog.Logger, l *loaded) {
	faults, _ := ownFaults(l.credential, l.name, l.trust, time.Now())
	for _, f := range faults {
		level := slog.LevelError
		if f.Warning {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "this machine's certificate", "what", f.What, "cure", f.Cure)
	}
}
