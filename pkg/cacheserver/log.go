// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

// NewLogger returns a logger that writes to out as config says. Unset fields
// mean level info and format json.
func NewLogger(config v1alpha1.Log, out io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{}
	switch config.Level {
	case v1alpha1.LogLevelDebug:
		options.Level = slog.LevelDebug
	case v1alpha1.LogLevelWarn:
		options.Level = slog.LevelWarn
	case v1alpha1.LogLevelError:
		options.Level = slog.LevelError
	}
	if config.Format == v1alpha1.LogFormatText {
		return slog.New(slog.NewTextHandler(out, options))
	}
	return slog.New(slog.NewJSONHandler(out, options))
}

// bridgeLogrus routes the log of distribution to log. distribution logs with the
// standard logger of logrus, and offers no way to give it another one. What is
// for debugging is not even made unless level says so.
func bridgeLogrus(log *slog.Logger, level v1alpha1.LogLevel) {
	standard := logrus.StandardLogger()
	standard.SetOutput(io.Discard)
	standard.SetFormatter(noFormat{})
	standard.ReplaceHooks(make(logrus.LevelHooks))
	standard.AddHook(logrusHook{log})
	if level == v1alpha1.LogLevelDebug {
		standard.SetLevel(logrus.DebugLevel)
	} else {
		standard.SetLevel(logrus.WarnLevel)
	}
}

// noFormat saves the work for lines that nobody reads.
type noFormat struct{}

// Format returns nothing.
func (noFormat) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

type logrusHook struct {
	log *slog.Logger
}

// Levels returns all levels: what is logged is decided by ours.
func (logrusHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes on only such fields as say what distribution was about: those of
// the request are in our own line of it, and may hold secrets.
func (h logrusHook) Fire(entry *logrus.Entry) error {
	level := slogLevel(entry)
	if !h.log.Enabled(context.Background(), level) {
		return nil
	}
	attributes := []slog.Attr{slog.String("component", "distribution")}
	for key, value := range entry.Data {
		if key == logrus.ErrorKey || strings.HasPrefix(key, "err.") || strings.HasPrefix(key, "vars.") {
			attributes = append(attributes, slog.String(key, pullthrough.Redact(fmt.Sprint(value))))
		}
	}
	slices.SortFunc(attributes, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	h.log.LogAttrs(context.Background(), level, pullthrough.Redact(entry.Message), attributes...)
	return nil
}

// slogLevel lowers what distribution has to say about each request, for which
// there is a line of ours.
func slogLevel(entry *logrus.Entry) slog.Level {
	switch {
	case entry.Level >= logrus.InfoLevel, entry.Message == "response completed with error":
		return slog.LevelDebug
	case entry.Level == logrus.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// newServerErrorLog returns a log for http.Server. Clients that break off, or
// probe a TLS port without TLS, are nothing to be told about.
func newServerErrorLog(log *slog.Logger) *stdlog.Logger {
	return stdlog.New(serverErrors{log}, "", 0)
}

type serverErrors struct {
	log *slog.Logger
}

func (e serverErrors) Write(line []byte) (int, error) {
	level := slog.LevelError
	if strings.HasPrefix(string(line), "http: TLS handshake error") {
		level = slog.LevelDebug
	}
	e.log.Log(context.Background(), level, strings.TrimSpace(string(line)), "component", "http")
	return len(line), nil
}
