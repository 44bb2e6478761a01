// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// start runs an upstream with a small image.
func start(t *testing.T) *upstream {
	t.Helper()
	image, err := newImage(4, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	u, err := startUpstream(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func TestPullIsCounted(t *testing.T) {
	u := start(t)
	pulls, err := (crowd{clients: 2, gated: true}).pull(t.Context(), target{url: u.url})
	if err != nil {
		t.Fatal(err)
	}
	for _, pull := range pulls {
		if len(pull.firstBytes) != 4 || pull.firstBytes[0] < upstreamDelay || pull.elapsed < 4*upstreamDelay {
			t.Errorf("unlikely times: %+v", pull)
		}
	}
	got, err := u.settled(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := counts{blobGets: 10, manifestHeads: 2, manifestGets: 2, blobBytes: 2 * u.image.size}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUpstreamServesRangesAtItsPace(t *testing.T) {
	u := start(t)
	var layer content
	for _, blob := range u.image.blobs {
		if blob.MediaType == layerType {
			layer = blob
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.url+"/v2/"+repository+"/blobs/"+layer.Digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Range", "bytes=5-")
	started := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusPartialContent || !bytes.Equal(body, layer.data[5:]) {
		t.Errorf("status %s, and %d bytes that may differ", response.Status, len(body))
	}
	least := upstreamDelay + time.Duration(len(body)-2*burst)*time.Second/upstreamBytesPerSecond
	if took := time.Since(started); took < least {
		t.Errorf("took %s, want at least %s", took, least)
	}
}

func TestClientsVerifyContent(t *testing.T) {
	u := start(t)
	for digest, blob := range u.image.blobs {
		if blob.MediaType == layerType {
			blob.data = bytes.Clone(blob.data)
			blob.data[len(blob.data)-1]++
			u.image.blobs[digest] = blob
		}
	}
	_, err := alone.pull(t.Context(), target{url: u.url})
	if err == nil || !strings.Contains(err.Error(), "content has digest") {
		t.Errorf("got %v", err)
	}
}

func TestBlackholeTakesConnectionsOldAndNew(t *testing.T) {
	u := start(t)
	old, fresh := newClient(target{url: u.url}), newClient(target{url: u.url})
	defer old.close()
	defer fresh.close()
	if _, err := old.resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := u.blackhole(); err != nil {
		t.Fatal(err)
	}
	u.reset()
	for _, client := range []*client{old, fresh} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := client.resolve(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	if got, err := u.settled(t.Context()); err != nil || got.requests() != 0 {
		t.Errorf("requests arrived: %+v, %v", got, err)
	}
}

func TestParseCPUTime(t *testing.T) {
	got, err := parseCPUTime([]byte("42 (a ) b) S 1 42 42 0 -1 4194560 5 0 0 0 150 25 0 0 20 0 9 0 1 2 3\n"))
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := parseCPUTime([]byte("42 (a) S 1")); err == nil {
		t.Error("no error for a short line")
	}
}

func TestRows(t *testing.T) {
	for name, test := range map[string]struct {
		row  row
		want string
	}{
		"met": {
			row{
				what: "a", unit: "s", format: "%.1f", reference: "direct", referenceCell: median([]float64{1}),
				stock: median([]float64{4, 1, 2}), ours: median([]float64{1, 3}), limit: atMost("2 s", 2, 2),
			},
			"| a | s | direct: 1.0 | 2.0 (1.0–4.0) | 2.0 (1.0–3.0) | 1.00 | 2.00 | ≤ 2 s | yes (2.00) |\n",
		},
		"not met": {
			row{what: "a", format: "%.0f", stock: largest([]float64{1, 2}), ours: largest([]float64{3}), limit: atMost("2", 3, 2)},
			"| a |  |  | 2 (1–2) | 3 | 1.50 |  | ≤ 2 | **no** (3.00) |\n",
		},
		"cut": {
			row{what: "a", unit: "s", format: "%.0f", stock: cutCell(true, 35, 36), ours: cutCell(false, 35, 7)},
			"| a | s |  | > 35 | 7 | < 0.20 |  |  |  |\n",
		},
		"nothing measured": {row{what: "a", format: "%.0f"}, "| a |  |  | – | – |  |  |  |  |\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.row.markdown(); got != test.want {
				t.Errorf("got  %swant %s", got, test.want)
			}
		})
	}
}
