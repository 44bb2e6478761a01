// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command plugin packs the kubectl plugin for the platforms that people sit at: an
// archive each, their sums, and the manifest by which krew installs it. The same
// sources, version and Go give the same archives. It runs in the folder of the main
// module.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/Masterminds/semver/v3"
	"sigs.k8s.io/yaml"
)

const (
	source  = "https://github.com/gardener/gardener-extension-registry-cache"
	program = "kubectl-registry_cache"
	// pluginName is what comes after `kubectl`, and after `kubectl krew install`.
	pluginName   = "registry-cache"
	manifestFile = pluginName + ".yaml"
	sumsFile     = "SHA256SUMS"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("The plugin was not packed", "error", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be done
	}
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("plugin", flag.ContinueOnError)
	version := flags.String("version", "", "`VERSION` of the plugin")
	output := flags.String("output", "bin/plugin", "`FOLDER` that gets archives, sums and the manifest")
	list := flags.String("platforms", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64", "`PLATFORMS` that there are archives for")
	base := flags.String("url", "", "`URL` of the folder that the archives are downloaded from; empty: that of the release on GitHub")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("usage: plugin -version VERSION [-output FOLDER] [-platforms PLATFORMS] [-url URL]")
	}
	if _, err := semver.StrictNewVersion(strings.TrimPrefix(*version, "v")); err != nil || !strings.HasPrefix(*version, "v") {
		return fmt.Errorf("version %q: krew takes semantic versions that begin with a v", *version)
	}
	if *base == "" {
		*base = source + "/releases/download/" + *version
	}
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*output, 0o750); err != nil {
		return fmt.Errorf("create folder of archives: %w", err)
	}
	if err := removeArchives(*output); err != nil {
		return err
	}

	manifest := newManifest(*version)
	var sums strings.Builder
	for _, platform := range strings.Split(*list, ",") {
		packed, err := pack(ctx, *version, platform, license)
		if err != nil {
			return fmt.Errorf("platform %s: %w", platform, err)
		}
		if err := write(filepath.Join(*output, packed.name), packed.content); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", packed.sum(), packed.name)
		manifest.Spec.Platforms = append(manifest.Spec.Platforms, packed.platform(strings.TrimSuffix(*base, "/")))
	}
	if err := write(filepath.Join(*output, sumsFile), []byte(sums.String())); err != nil {
		return err
	}
	encoded, err := yaml.Marshal(manifest)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	return write(filepath.Join(*output, manifestFile), encoded)
}

// removeArchives removes those of an earlier run, which may be for other platforms and
// then are not in the sums.
func removeArchives(folder string) error {
	earlier, err := filepath.Glob(filepath.Join(folder, program+"-*.tar.gz"))
	if err != nil {
		return err
	}
	for _, file := range earlier {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove earlier archive: %w", err)
		}
	}
	return nil
}

func write(file string, content []byte) error {
	if err := os.WriteFile(file, content, 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write: %w", err)
	}
	slog.Info("Wrote", "file", file, "MiB", fmt.Sprintf("%.1f", float64(len(content))/(1<<20)))
	return nil
}

// archive has the plugin for one platform, and the license.
type archive struct {
	name, os, arch string
	// binary is the name of the program in it.
	binary  string
	content []byte
}

// pack has hack/build.sh build the plugin for a platform, such as linux/amd64.
func pack(ctx context.Context, version, platform string, license []byte) (*archive, error) {
	system, architecture, found := strings.Cut(platform, "/")
	if !found {
		return nil, errors.New("must be a system and an architecture with a slash between them")
	}
	dir, err := os.MkdirTemp("", "plugin-")
	if err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd := exec.CommandContext(ctx, "hack/build.sh", program)
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+architecture, "OUTPUT="+dir, "VERSION="+version)
	cmd.WaitDelay = 5 * time.Second // the compiler outlives the script, and holds its output
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", program, err, strings.TrimSpace(string(output)))
	}
	built, err := os.ReadFile(filepath.Join(dir, program)) //nolint:gosec // it was just built
	if err != nil {
		return nil, err
	}
	packed := &archive{name: fmt.Sprintf("%s-%s-%s.tar.gz", program, system, architecture), os: system, arch: architecture, binary: program}
	if system == "windows" {
		packed.binary += ".exe"
	}
	packed.content, err = archiveOf(packed.binary, built, license)
	return packed, err
}

// archiveOf returns an archive of files that have no time.
func archiveOf(name string, binary, license []byte) ([]byte, error) {
	var content bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&content, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	files := tar.NewWriter(compressed)
	for _, file := range []struct {
		name    string
		mode    int64
		content []byte
	}{{name, 0o755, binary}, {"LICENSE", 0o644, license}} {
		header := &tar.Header{
			Name: file.name, Mode: file.mode, Size: int64(len(file.content)),
			ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatPAX,
		}
		if err := files.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.name, err)
		}
		if _, err := files.Write(file.content); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.name, err)
		}
	}
	if err := errors.Join(files.Close(), compressed.Close()); err != nil {
		return nil, fmt.Errorf("write end of the archive: %w", err)
	}
	return content.Bytes(), nil
}

func (a *archive) sum() string { return fmt.Sprintf("%x", sha256.Sum256(a.content)) }
