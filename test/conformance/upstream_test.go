// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "crypto/sha512" // for digests

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openRegistry holds whatever the suite pushes. distribution, the registry that
// other tests pull from, refuses images without all of their layers, knows
// sha256 only, and has neither referrers nor tags that are pushed as parameters:
// with it, a good part of the pull checks could not run. All of it is in memory,
// and nothing can be deleted.
type openRegistry struct {
	mu           sync.Mutex
	repositories map[string]*openRepository
	uploads      int
}

type openRepository struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]storedManifest
	tags      map[string]digest.Digest
	uploads   map[string][]byte
}

type storedManifest struct {
	content   []byte
	mediaType string
}

// What the parts of openPath are. A repository may have any of these words in
// its name, but the suite's have not.
var openPath = regexp.MustCompile(`^/v2/(.+)/(blobs/uploads|blobs|manifests|tags|referrers)/(.*)$`)

func startOpenRegistry(t *testing.T) *url.URL {
	t.Helper()
	server := httptest.NewServer(&openRegistry{repositories: map[string]*openRepository{}})
	t.Cleanup(server.Close)
	return parseURL(t, server.URL)
}

func (r *openRegistry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	parts := openPath.FindStringSubmatch(request.URL.Path)
	if parts == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	repository := r.repositories[parts[1]]
	if repository == nil {
		repository = &openRepository{
			blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]storedManifest{},
			tags: map[string]digest.Digest{}, uploads: map[string][]byte{},
		}
		r.repositories[parts[1]] = repository
	}
	reading := request.Method == http.MethodGet || request.Method == http.MethodHead
	switch kind := parts[2]; {
	case kind == "blobs/uploads" && request.Method == http.MethodPost:
		r.startUpload(w, request, parts[1])
	case kind == "blobs/uploads":
		repository.upload(w, request, parts[1], parts[3])
	case kind == "manifests" && request.Method == http.MethodPut:
		repository.putManifest(w, request, parts[3])
	case !reading:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	case kind == "blobs":
		repository.getBlob(w, request, parts[3])
	case kind == "manifests":
		repository.getManifest(w, request, parts[3])
	case kind == "tags" && parts[3] == "list":
		repository.listTags(w, request, parts[1])
	case kind == "referrers":
		repository.listReferrers(w, request, parts[3])
	default:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
	}
}

func (r *openRegistry) startUpload(w http.ResponseWriter, request *http.Request, name string) {
	repository, query := r.repositories[name], request.URL.Query()
	if mounted := digest.Digest(query.Get("mount")); mounted != "" {
		for _, source := range r.repositories {
			if content, ok := source.blobs[mounted]; ok {
				repository.putBlob(w, name, mounted.String(), content)
				return
			}
		}
	}
	if query.Has("digest") {
		if content, ok := read(w, request); ok {
			repository.putBlob(w, name, query.Get("digest"), content)
		}
		return
	}
	r.uploads++
	id := strconv.Itoa(r.uploads)
	repository.uploads[id] = []byte{}
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id)
	w.WriteHeader(http.StatusAccepted)
}

func (r *openRepository) upload(w http.ResponseWriter, request *http.Request, name, id string) {
	received, ok := r.uploads[id]
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	w.Header().Set("Location", request.URL.Path)
	if request.Method == http.MethodPatch || request.Method == http.MethodPut {
		if at := request.Header.Get("Content-Range"); at != "" && !strings.HasPrefix(at, strconv.Itoa(len(received))+"-") {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
			return
		}
		chunk, ok := read(w, request)
		if !ok {
			return
		}
		received = append(received, chunk...)
		r.uploads[id] = received
	}
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(received)-1)))
	switch request.Method {
	case http.MethodGet:
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		delete(r.uploads, id)
		r.putBlob(w, name, request.URL.Query().Get("digest"), received)
	case http.MethodDelete:
		delete(r.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	}
}

func (r *openRepository) putBlob(w http.ResponseWriter, name, reference string, content []byte) {
	dgst, err := digest.Parse(reference)
	if err != nil || dgst.Algorithm().FromBytes(content) != dgst {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	r.blobs[dgst] = content
	w.Header().Set("Location", "/v2/"+name+"/blobs/"+dgst.String())
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *openRepository) getBlob(w http.ResponseWriter, request *http.Request, reference string) {
	content, ok := r.blobs[digest.Digest(reference)]
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", reference)
	http.ServeContent(w, request, "", time.Time{}, bytes.NewReader(content))
}

func (r *openRepository) putManifest(w http.ResponseWriter, request *http.Request, reference string) {
	content, ok := read(w, request)
	if !ok {
		return
	}
	dgst, tags := digest.FromBytes(content), request.URL.Query()["tag"]
	if strings.Contains(reference, ":") {
		wanted, err := digest.Parse(reference)
		if err != nil || wanted.Algorithm().FromBytes(content) != wanted {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		dgst = wanted
	} else {
		tags = append(tags, reference)
	}
	r.manifests[dgst] = storedManifest{content: content, mediaType: request.Header.Get("Content-Type")}
	for _, tag := range tags {
		r.tags[tag] = dgst
		w.Header().Add("OCI-Tag", tag)
	}
	if subject := describe(content).Subject; subject != nil {
		w.Header().Set("OCI-Subject", subject.Digest.String())
	}
	w.Header().Set("Location", request.URL.Path)
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *openRepository) getManifest(w http.ResponseWriter, request *http.Request, reference string) {
	dgst := digest.Digest(reference)
	if tagged, ok := r.tags[reference]; ok {
		dgst = tagged
	}
	manifest, ok := r.manifests[dgst]
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", manifest.mediaType)
	w.Header().Set("Docker-Content-Digest", dgst.String())
	http.ServeContent(w, request, "", time.Time{}, bytes.NewReader(manifest.content))
}

func (r *openRepository) listTags(w http.ResponseWriter, request *http.Request, name string) {
	tags := []string{}
	for tag := range r.tags {
		if tag > request.URL.Query().Get("last") {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	answer(w, "application/json", map[string]any{"name": name, "tags": tags})
}

func (r *openRepository) listReferrers(w http.ResponseWriter, request *http.Request, subject string) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	wanted := request.URL.Query().Get("artifactType")
	for dgst, manifest := range r.manifests {
		described := describe(manifest.content)
		if described.Subject == nil || described.Subject.Digest.String() != subject {
			continue
		}
		if described.ArtifactType == "" && described.Config != nil {
			described.ArtifactType = described.Config.MediaType
		}
		if wanted != "" && described.ArtifactType != wanted {
			continue
		}
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: manifest.mediaType, ArtifactType: described.ArtifactType, Digest: dgst,
			Size: int64(len(manifest.content)), Annotations: described.Annotations,
		})
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	answer(w, ocispec.MediaTypeImageIndex, index)
}

// described is what matters here of an image manifest or an index.
type described struct {
	ArtifactType string              `json:"artifactType"`
	Config       *ocispec.Descriptor `json:"config"`
	Subject      *ocispec.Descriptor `json:"subject"`
	Annotations  map[string]string   `json:"annotations"`
}

// describe returns nothing for what is no manifest.
func describe(content []byte) described {
	var d described
	_ = json.Unmarshal(content, &d)
	return d
}

func read(w http.ResponseWriter, request *http.Request) ([]byte, bool) {
	content, err := io.ReadAll(request.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "SIZE_INVALID")
	}
	return content, err == nil
}

func answer(w http.ResponseWriter, mediaType string, body any) {
	w.Header().Set("Content-Type", mediaType)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": http.StatusText(status)}}})
}
