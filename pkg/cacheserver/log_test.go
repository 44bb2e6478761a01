// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"bytes"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
)

func TestNewLogger(t *testing.T) {
	for _, test := range []struct {
		config v1alpha1.Log
		want   []string
	}{
		{v1alpha1.Log{}, []string{`"msg":"info"`, `"msg":"warn"`, `"msg":"error"`}},
		{v1alpha1.Log{Level: v1alpha1.LogLevelDebug}, []string{`"msg":"debug"`, `"msg":"info"`, `"msg":"warn"`, `"msg":"error"`}},
		{v1alpha1.Log{Level: v1alpha1.LogLevelWarn}, []string{`"msg":"warn"`, `"msg":"error"`}},
		{v1alpha1.Log{Level: v1alpha1.LogLevelError, Format: v1alpha1.LogFormatText}, []string{`msg=error`}},
	} {
		g := NewWithT(t)
		var out bytes.Buffer
		logger := NewLogger(test.config, &out)
		logger.Debug("debug")
		logger.Info("info")
		logger.Warn("warn")
		logger.Error("error")
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		g.Expect(lines).To(HaveLen(len(test.want)))
		for i, want := range test.want {
			g.Expect(string(lines[i])).To(ContainSubstring(want))
		}
	}
}

func TestDistributionLogsThroughOurs(t *testing.T) {
	for _, test := range []struct {
		name  string
		level v1alpha1.LogLevel
		log   func(*logrus.Entry)
		want  []string
	}{
		{"info is debug", v1alpha1.LogLevelInfo, func(e *logrus.Entry) { e.Info("text") }, nil},
		{"at debug", v1alpha1.LogLevelDebug, func(e *logrus.Entry) { e.Info("text") }, []string{`"level":"DEBUG"`, `"msg":"text"`, `"component":"distribution"`, `"vars.name":"app"`}},
		{"warning", v1alpha1.LogLevelInfo, func(e *logrus.Entry) { e.Warn("text") }, []string{`"level":"WARN"`}},
		{"error", v1alpha1.LogLevelInfo, func(e *logrus.Entry) {
			e.WithError(errors.New("https://a.b/c?token=secret")).Error("text of https://x:secret@y")
		}, []string{`"level":"ERROR"`, `"error":"https://a.b/c?..."`, `"text of https://y"`}},
		{"a request that failed", v1alpha1.LogLevelInfo, func(e *logrus.Entry) { e.Error("response completed with error") }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := NewWithT(t)
			var out bytes.Buffer
			bridgeLogrus(NewLogger(v1alpha1.Log{Level: test.level}, &out), test.level)
			test.log(logrus.WithFields(logrus.Fields{"vars.name": "app", "http.request.uri": "/v2/?x=secret"}))
			if test.want == nil {
				g.Expect(out.String()).To(BeEmpty())
			}
			for _, want := range test.want {
				g.Expect(out.String()).To(ContainSubstring(want))
			}
			g.Expect(out.String()).NotTo(ContainSubstring("secret"))
		})
	}
}
