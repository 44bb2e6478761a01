// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
)

func TestParseRange(t *testing.T) {
	whole := byteRange{length: 100}
	part := func(offset, length int64) byteRange { return byteRange{offset: offset, length: length, partial: true} }
	for value, want := range map[string]byteRange{
		"":                             whole,
		"bytes=0-":                     part(0, 100),
		"bytes=0-0":                    part(0, 1),
		"bytes=99-":                    part(99, 1),
		" bytes= 10-19 ":               part(10, 10),
		"bytes=10-1000":                part(10, 90),
		"bytes=-1":                     part(99, 1),
		"bytes=-1000":                  part(0, 100),
		"bytes=-":                      whole,
		"bytes=":                       whole,
		"bytes=+1-2":                   whole,
		"bytes=1-+2":                   whole,
		"bytes=--1":                    whole,
		"bytes=0-1,2-3":                whole,
		"bytes=99999999999999999999-":  whole,
		"bytes=0-99999999999999999999": whole,
		"items=0-1":                    whole,
	} {
		got, ok := parseRange(value, 100)
		NewWithT(t).Expect(ok).To(BeTrue(), value)
		NewWithT(t).Expect(got).To(Equal(want), value)
	}
	for _, value := range []string{"bytes=100-", "bytes=100-200", "bytes=-0", "bytes=5-4", "bytes=9223372036854775807-"} {
		_, ok := parseRange(value, 100)
		NewWithT(t).Expect(ok).To(BeFalse(), value)
	}
	got, ok := parseRange("bytes=5-6", unknownSize)
	NewWithT(t).Expect(ok).To(BeTrue())
	NewWithT(t).Expect(got).To(Equal(byteRange{length: unknownSize}))
	_, ok = parseRange("bytes=0-", 0)
	NewWithT(t).Expect(ok).To(BeFalse())
}

func FuzzParseRange(f *testing.F) {
	for _, value := range []string{"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=0-1,3-4", "bytes=18446744073709551615-", "x"} {
		f.Add(value, int64(100))
	}
	f.Add("bytes=0-", int64(0))
	f.Add("bytes=1-2", int64(unknownSize))
	f.Fuzz(func(t *testing.T, value string, size int64) {
		if size < unknownSize {
			return
		}
		got, ok := parseRange(value, size)
		switch {
		case !ok:
			return
		case !got.partial && (got.offset != 0 || got.length != size):
			t.Fatalf("%q of %d: all of it is %+v", value, size, got)
		case got.partial && (got.offset < 0 || got.length <= 0 || got.length > size-got.offset):
			t.Fatalf("%q of %d: %+v is not in it", value, size, got)
		}
	})
}

func TestParseContentRange(t *testing.T) {
	g := NewWithT(t)
	offset, size, err := parseContentRange("bytes 10-19/100")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]int64{offset, size}).To(Equal([]int64{10, 100}))
	offset, size, err = parseContentRange("bytes 10-19/*")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]int64{offset, size}).To(Equal([]int64{10, unknownSize}))
	for _, value := range []string{"", "bytes */100", "bytes 10-/100", "items 1-2/3", "bytes 1-2/3 ", "bytes 99999999999999999999-1/2"} {
		_, _, err := parseContentRange(value)
		g.Expect(err).To(MatchError(errRange), value)
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, value := range []string{"bytes 10-19/100", "bytes 10-19/*", "bytes */100", ""} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		offset, size, err := parseContentRange(value)
		if err == nil && (offset < 0 || size < unknownSize) {
			t.Fatalf("%q: %d of %d", value, offset, size)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "0": 0, "30": 30 * time.Second,
		"99999999999999999":             longestRetryAfter,
		"99999999999999999999999999":    0,
		now.Format(http.TimeFormat):     0,
		"Tue, 24 Nov 2026 12:01:00 GMT": time.Minute,
		"Tue, 24 Nov 2026 11:00:00 GMT": 0,
	} {
		NewWithT(t).Expect(parseRetryAfter(value, now)).To(Equal(want), value)
	}
}

func TestRelativeLink(t *testing.T) {
	for link, want := range map[string]string{
		`<https://registry-1.docker.io/v2/a/tags/list?n=1&last=b>; rel="next"`: `</v2/a/tags/list?n=1&last=b>; rel="next"`,
		`</v2/a/tags/list?last=b>; rel="next"`:                                 `</v2/a/tags/list?last=b>; rel="next"`,
		`nonsense`:                                                             `nonsense`,
		`<?last=x>; rel="next"`:                                                `<?last=x>; rel="next"`,
	} {
		NewWithT(t).Expect(relativeLink(link)).To(Equal(want))
	}
}

func TestMediaTypeOf(t *testing.T) {
	for content, want := range map[string]string{
		`{"mediaType":"application/x"}`:   "application/x",
		`{"manifests":[]}`:                "application/vnd.oci.image.index.v1+json",
		`{"config":{},"layers":[]}`:       "application/vnd.oci.image.manifest.v1+json",
		`{"mediaType":5}`:                 "application/octet-stream",
		`<html>`:                          "application/octet-stream",
		`{"manifests":null,"layers":[]}`:  "application/vnd.oci.image.index.v1+json",
		`{"mediaType":"","manifests":[]}`: "application/vnd.oci.image.index.v1+json",
	} {
		NewWithT(t).Expect(mediaTypeOf([]byte(content))).To(Equal(want), content)
	}
}

func TestMatches(t *testing.T) {
	g := NewWithT(t)
	dgst := digest.FromString("x")
	for _, tags := range []string{dgst.String(), `"` + dgst.String() + `"`, `W/"` + dgst.String() + `"`, `"a", "` + dgst.String() + `"`} {
		g.Expect(matches(tags, dgst)).To(BeTrue(), tags)
	}
	for _, tags := range []string{"", `"sha256:x"`, "*"} {
		g.Expect(matches(tags, dgst)).To(BeFalse(), tags)
	}
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"nothing to hide": "nothing to hide",
		`Get "https://cdn.example.com/blob?X-Signature=abc&x=1": EOF`:     `Get "https://cdn.example.com/blob?...": EOF`,
		"https://auth.example.com/token?account=alice and http://b.c/d?e": "https://auth.example.com/token?... and http://b.c/d?...",
		"dial http://alice:secret@registry.example.com/v2/":               "dial http://registry.example.com/v2/",
		"https://registry.example.com/v2/a/blobs/sha256:0123":             "https://registry.example.com/v2/a/blobs/sha256:0123",
	} {
		NewWithT(t).Expect(Redact(text)).To(Equal(want))
	}
}
