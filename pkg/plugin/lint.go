// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission/judge"
)

// maxManifestBytes bounds a document. A Shoot has at most about 1.5 MiB, and a document
// may be a list of them.
const maxManifestBytes = 32 << 20

const stdin = "-"

func newLintCommand(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Validate the caches and mirrors of Shoot manifests, offline",
		Long: `Validate the caches and mirrors of Shoot manifests with the code of the
extension's admission, and without any cluster. FILE is a file of one or more YAML or
JSON documents, or - for the standard input. Objects of other kinds are left alone.

Secrets that a cache or mirror refers to are validated if one of the files has them;
otherwise they are named, for only the garden has them. What only an update of a Shoot
can be refused for, like a smaller volume, cannot be seen.

Exit codes: 0 no problems; 1 problems were found; 2 a file could not be read, or no
file has a Shoot.`,
		Example: `  kubectl registry-cache lint shoot.yaml

  # As admission would see the Shoot that is there
  kubectl get shoot my-shoot -o yaml | kubectl registry-cache lint -

  # All Shoots of a garden, in a document each
  kubectl get shoots -A -o json | jq -r '.items[] | "---\n\(tojson)"' | kubectl registry-cache lint -

  # In a pipeline
  kustomize build . | kubectl registry-cache lint -`,
		Args: arguments(1, 0, "files of Shoots, or - for the standard input"),
		RunE: func(_ *cobra.Command, files []string) error { return lint(streams, files) },
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		// Those that name a cluster.
		cmd.InheritedFlags().VisitAll(func(flag *pflag.Flag) { flag.Hidden = true })
		cmd.Root().HelpFunc()(cmd, args)
	})
	return cmd
}

// manifest is a Shoot with the place that it came from.
type manifest struct {
	file  string
	shoot *gardencorev1beta1.Shoot
}

// manifests are what lint read.
type manifests struct {
	shoots []manifest
	// secrets are by namespace and name. The namespace may be empty, as in
	// manifests that are applied with kubectl -n.
	secrets map[[2]string]*corev1.Secret
}

func lint(streams Streams, files []string) error {
	read := &manifests{secrets: make(map[[2]string]*corev1.Secret)}
	for _, file := range files {
		if err := read.addFile(streams.In, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if len(read.shoots) == 0 {
		return fmt.Errorf("no Shoot of group %s in %s: nothing was validated", gardencorev1beta1.GroupName, strings.Join(files, ", "))
	}
	style := styleFor(streams.Out)
	found := false
	for _, shoot := range read.shoots {
		problems, unread := judge.Offline(shoot.shoot, func(name string) *corev1.Secret { return read.secret(shoot.shoot.Namespace, name) })
		found = found || len(problems) > 0
		if err := printProblems(streams.Out, style, shoot, problems, unread); err != nil {
			return err
		}
	}
	if found {
		return errProblems
	}
	return nil
}

func printProblems(out io.Writer, style style, m manifest, problems field.ErrorList, unread []string) error {
	var text strings.Builder
	name := fmt.Sprintf("%s: Shoot %s", m.file, strings.TrimPrefix(m.shoot.Namespace+"/"+m.shoot.Name, "/"))
	for _, problem := range problems {
		fmt.Fprintf(&text, "%s: %s\n", name, style.bad(judge.Shorten(problem).Error()))
	}
	for _, secret := range unread {
		fmt.Fprintf(&text, "%s: %s\n", name, style.doubtful(fmt.Sprintf("Secret %q is in none of the files and was not validated", secret)))
	}
	if len(problems) == 0 {
		fmt.Fprintf(&text, "%s: %s\n", name, style.good("ok"))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func (m *manifests) secret(namespace, name string) *corev1.Secret {
	if secret := m.secrets[[2]string{namespace, name}]; secret != nil {
		return secret
	}
	return m.secrets[[2]string{"", name}]
}

// addFile adds the objects of a file.
func (m *manifests) addFile(in io.Reader, file string) error {
	if file != stdin {
		opened, err := os.Open(file) //nolint:gosec // the file is the user's to choose
		if err != nil {
			// The caller names the file.
			var failed *os.PathError
			if errors.As(err, &failed) {
				err = failed.Err
			}
			return err
		}
		defer func() { _ = opened.Close() }() // it was only read
		in = opened
	}
	bounded := &boundedReader{reader: in}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bounded))
	for number := 1; ; number++ {
		bounded.left = maxManifestBytes
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = m.addDocument(file, document)
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", number, err)
		}
	}
}

// boundedReader reads as long as something is left.
type boundedReader struct {
	reader io.Reader
	// left are the bytes that may still be read.
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("more than %d MiB", maxManifestBytes>>20)
	}
	n, err := b.reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// addDocument adds the object of a document, or those of a list. An empty document has
// none.
func (m *manifests) addDocument(file string, document []byte) error {
	raw, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return err
	}
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return m.addObject(file, raw)
}

func (m *manifests) addObject(file string, raw []byte) error {
	object := struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Items      []json.RawMessage `json:"items"`
	}{}
	if err := json.Unmarshal(raw, &object); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			// Without the names of Go's types.
			return fmt.Errorf("not a Kubernetes object: %s is of the type %s", cmp.Or(wrong.Field, "it"), wrong.Value)
		}
		return fmt.Errorf("not a Kubernetes object: %w", err)
	}
	groupVersion, err := schema.ParseGroupVersion(object.APIVersion)
	switch {
	case err != nil:
		return err
	case object.Kind == "":
		return errors.New("not a Kubernetes object: it has no kind")
	case strings.HasSuffix(object.Kind, "List") && object.Items != nil:
		for _, item := range object.Items {
			if err := m.addObject(file, item); err != nil {
				return err
			}
		}
	case object.Kind == "Shoot" && groupVersion.Group == gardencorev1beta1.GroupName:
		shoot, err := judge.DecodeShoot(raw)
		if err != nil {
			return fmt.Errorf("decode Shoot: %w", err)
		}
		m.shoots = append(m.shoots, manifest{file: file, shoot: shoot})
	case object.Kind == "Secret" && object.APIVersion == "v1":
		return m.addSecret(raw)
	}
	return nil
}

// addSecret adds a Secret, with what an API server makes of its stringData.
func (m *manifests) addSecret(raw []byte) error {
	secret := &corev1.Secret{}
	if err := json.Unmarshal(raw, secret); err != nil {
		// Without the cause, which may have some of the content.
		return errors.New("decode Secret: its data is not base64, or a field has the wrong type")
	}
	for key, value := range secret.StringData {
		if secret.Data == nil {
			secret.Data = make(map[string][]byte)
		}
		secret.Data[key] = slices.Clone([]byte(value))
	}
	m.secrets[[2]string{secret.Namespace, secret.Name}] = secret
	return nil
}
