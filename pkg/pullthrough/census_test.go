// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestInventoryStopsAtTheBound(t *testing.T) {
	g := NewWithT(t)
	c := newCensus(t, 2)
	for _, repository := range []string{"a", "b", "b/c", "d"} {
		addImages(t, c, repository, 3)
	}
	// To read it would be an error.
	addUnreadable(t, c, "e")

	found, err := c.take(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found.Truncated).To(BeTrue())
	g.Expect(found.Images).To(HaveLen(2))
	g.Expect(found.Images).To(HaveEach(HaveField("Repository", "a")))
	g.Expect(c.reads).To(Equal(3), "nothing after the first repository")
}

func TestInventoryStopsInARepository(t *testing.T) {
	g := NewWithT(t)
	c := newCensus(t, 2)
	addImages(t, c, "a", 50)

	found, err := c.take(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found.Truncated).To(BeTrue())
	g.Expect(found.Images).To(HaveLen(2))
	g.Expect(found.Images).To(HaveEach(HaveField("Missing", 1)), "what is listed was read: its layer is known")
	g.Expect(c.reads).To(Equal(2 * readsPerImage))
}

func TestInventoryThatFitsIsNotTruncated(t *testing.T) {
	g := NewWithT(t)
	c := newCensus(t, 4)
	addImages(t, c, "a", 2)
	addImages(t, c, "b", 2)

	found, err := c.take(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found.Truncated).To(BeFalse())
	g.Expect(found.Images).To(HaveLen(4))
}

func TestInventoryOfAVolumeThatCannotBeRead(t *testing.T) {
	g := NewWithT(t)
	c := newCensus(t, 2)
	addUnreadable(t, c, "a")
	addImages(t, c, "b", 3)

	_, err := c.take(t.Context())
	g.Expect(c.truncated).To(BeTrue())
	g.Expect(err).To(MatchError(syscall.ENAMETOOLONG), "that it had enough hides no failure")
}

func TestInventoryEndsWithItsClient(t *testing.T) {
	g := NewWithT(t)
	c := newCensus(t, 2)
	addImages(t, c, "a", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := c.take(ctx)
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(c.reads).To(BeZero())
}

// newCensus returns a census of a volume of its own.
func newCensus(t *testing.T, maxImages int) *census {
	t.Helper()
	store, err := newStore(t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return &census{Engine: &Engine{store: store, evictor: &evictor{store: store}}, maxImages: maxImages}
}

// addImages stores manifests, each of one layer that is not there.
func addImages(t *testing.T, c *census, repository string, count int) {
	t.Helper()
	g := NewWithT(t)
	for i := range count {
		content := fmt.Appendf(nil, `{"layers":[{"digest":%q}]}`, digest.FromString(fmt.Sprint(repository, i)))
		dgst := digest.FromBytes(content)
		g.Expect(c.store.write(c.store.blobPath(dgst), content)).To(Succeed())
		g.Expect(c.store.linkManifest(repository, dgst, ocispec.MediaTypeImageManifest)).To(Succeed())
	}
}

// addUnreadable makes folders below a repository whose path is longer than Linux takes,
// which root cannot read either.
func addUnreadable(t *testing.T, c *census, repository string) {
	t.Helper()
	g := NewWithT(t)
	folder := filepath.Join(c.store.content, "repositories", repository)
	g.Expect(os.MkdirAll(folder, 0o750)).To(Succeed())
	root, err := os.OpenRoot(folder)
	g.Expect(err).NotTo(HaveOccurred())
	for range 20 {
		name := strings.Repeat("x", 250)
		g.Expect(root.Mkdir(name, 0o750)).To(Succeed())
		next, err := root.OpenRoot(name)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(root.Close()).To(Succeed())
		root = next
	}
	g.Expect(root.Close()).To(Succeed())
}
