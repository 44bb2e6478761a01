// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

// How a pod is asked is in test/e2e, for it takes a kubelet.

var (
	now    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	digest = "sha256:" + strings.Repeat("0123456789abcdef", 4)
)

func TestExplainInventory(t *testing.T) {
	listed := &inventory.Inventory{Images: []inventory.Image{
		{Repository: "library/app", Tags: []string{"v1"}, Digest: digest, Blobs: 9, Bytes: 64 << 20, LastUsed: now.Add(-2 * time.Minute)},
		{Repository: "library/app", Tags: []string{"v2"}, Digest: "sha256:other", Blobs: 3, Missing: 2, LastUsed: now.Add(-3 * time.Hour)},
	}}
	for image, expected := range map[string]string{
		"app:v1":        "yes, all 9 blobs, 64MiB, last used 2m ago\ntag v1 was last " + digest,
		"app@" + digest: "yes, all 9 blobs, 64MiB, last used 2m ago",
		"app:v2":        "in part: 3 of 5 blobs, last used 3h ago",
		"app:v3":        "no: not pulled through this cache yet",
		"app@" + strings.Replace(digest, "0", "f", 1): "it has 2 other images of this repository",
	} {
		t.Run(image, func(t *testing.T) {
			g := NewWithT(t)
			named, err := reference.ParseNormalizedNamed(image)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(explainInventory(listed, named, style{}, now)).To(ContainSubstring(expected))
		})
	}
}

func TestImageRows(t *testing.T) {
	g := NewWithT(t)
	inPart := inventory.Image{Repository: "library/app", Tags: []string{"v1", "latest"}, Digest: digest, Blobs: 2, Missing: 1, LastUsed: now.Add(-time.Minute)}
	whole := inPart
	whole.Blobs, whole.Missing, whole.LastUsed = 3, 0, now.Add(-time.Hour)
	untagged := inventory.Image{Repository: "tool", Digest: digest, Blobs: 1, LastUsed: now}

	rows := imageRows([]podImages{
		{Upstream: "docker.io", Pod: "a", Inventory: inventory.Inventory{Images: []inventory.Image{inPart}}},
		{Upstream: "docker.io", Pod: "b", Inventory: inventory.Inventory{Images: []inventory.Image{whole, untagged}}},
	}, style{}, now)

	var text strings.Builder
	g.Expect(printTable(&text, 0, imagesHeader[:4], first(4, rows))).To(Succeed())
	g.Expect(text.String()).To(Equal(strings.Join([]string{
		"IMAGE                                 SIZE   LAST USED   CACHED",
		"docker.io/tool@sha256:0123456789ab…   0B     0s ago      all",
		"docker.io/library/app:latest          0B     60m ago     all",
		"docker.io/library/app:v1              0B     60m ago     all",
		"",
	}, "\n")))
}

func first(columns int, rows [][]cell) [][]cell {
	cut := make([][]cell, 0, len(rows))
	for _, row := range rows {
		cut = append(cut, row[:columns])
	}
	return cut
}

func TestFormatBytes(t *testing.T) {
	g := NewWithT(t)
	for bytes, expected := range map[int64]string{
		0: "0B", 1023: "1023B", 1 << 10: "1.0KiB", 10 << 10: "10KiB", 1023 << 10: "1.0MiB", 999 << 20: "999MiB", 3 << 30: "3.0GiB", 1 << 62: "4.0EiB",
	} {
		g.Expect(formatBytes(bytes)).To(Equal(expected))
	}
}

func TestNothingMovesTheTerminal(t *testing.T) {
	NewWithT(t).Expect(printable("a\x1b[2Jb\r\nc")).To(Equal("a [2Jb  c"))
}

func TestWideCharactersStayOnTheirLine(t *testing.T) {
	g := NewWithT(t)
	const message = "请求失败 café"
	g.Expect(textWidth(message)).To(Equal(13))
	g.Expect(textWidth("cafe\u0301")).To(Equal(4))
	g.Expect(truncate(message, 13)).To(Equal(message))
	g.Expect(truncate(message, 12)).To(Equal("请求失败 ca…"))
	g.Expect(truncate(message, 6)).To(Equal("请求…"), "half a character is none")
}

func TestNoLineEndsWithSpace(t *testing.T) {
	g := NewWithT(t)
	var text strings.Builder
	g.Expect(printTable(&text, 0, []string{"A", "B"}, [][]cell{{{text: "long text"}, {text: ""}}, {{text: "a"}, {text: "b"}}})).To(Succeed())
	g.Expect(printFields(&text, [][2]string{{"Name:", "first\n\nthird"}})).To(Succeed())
	for line := range strings.Lines(text.String()) {
		g.Expect(line).NotTo(MatchRegexp(` \n$`))
	}
}
