// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestUnitSaysWhatMatters(t *testing.T) {
	g := NewWithT(t)
	settings := map[string]string{}
	section := ""
	for line := range strings.Lines(Unit()) {
		line = strings.TrimSpace(line)
		switch key, value, found := strings.Cut(line, "="); {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = line
		default:
			g.Expect(found).To(BeTrue(), line)
			settings[section+key] = value
		}
	}
	for key, value := range map[string]string{
		"[Unit]After":              "containerd.service",
		"[Service]ExecStart":       "/bin/sh " + Directory + "/" + scriptName,
		"[Service]ExecStopPost":    "/bin/sh " + Directory + "/" + scriptName + " withdraw",
		"[Service]Restart":         "always",
		"[Service]ReadWritePaths":  "/etc/containerd/certs.d",
		"[Service]ProtectSystem":   "strict",
		"[Service]NoNewPrivileges": "yes",

		"[Service]CapabilityBoundingSet": "CAP_NET_ADMIN",
		"[Install]WantedBy":              "multi-user.target",
		"[Unit]StartLimitIntervalSec":    "0",
	} {
		g.Expect(settings).To(HaveKeyWithValue(key, value))
	}
	for _, key := range []string{"Requires", "Requisite", "BindsTo", "Before", "Wants"} {
		g.Expect(settings).NotTo(HaveKey("[Unit]"+key), "the unit must not hold up or fail others")
	}
}

// TestSystemdAcceptsUnit is about syntax and unknown names.
func TestSystemdAcceptsUnit(t *testing.T) {
	analyze := lookPath(t, "systemd-analyze")
	g := NewWithT(t)
	name := filepath.Join(t.TempDir(), UnitName)
	g.Expect(os.WriteFile(name, []byte(Unit()), 0o600)).To(Succeed())
	output, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", name).CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(output))
	// Most mistakes are warnings only; those about other units are not ours.
	for line := range strings.Lines(string(output)) {
		g.Expect(line).NotTo(ContainSubstring(UnitName))
	}
}
