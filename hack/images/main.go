// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command images builds the product's container images without a container
// engine and without a base image: static binaries and what they need from a
// file system, as OCI indexes for all platforms. The same sources, version and Go
// give the same digests. It runs in the folder of the main module.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	source   = "https://github.com/gardener/gardener-extension-registry-cache"
	licenses = "Apache-2.0"
)

// program is a program below cmd, which is also the name of its image.
type program struct{ name, description string }

var programs = []program{
	{"gardener-extension-registry-cache", "Gardener extension that gives Shoots pull-through registry caches"},
	{"registry-cache", "Pull-through cache of one upstream registry"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("Images were not built", "error", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be done
	}
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	version := flags.String("version", "", "`VERSION` of the images, which is also their tag")
	revision := flags.String("revision", "", "`REVISION` of the sources, by which version control knows them; empty: unknown")
	output := flags.String("output", "bin/images", "`FOLDER` that gets an OCI layout for each image")
	wantedPlatforms := flags.String("platforms", "linux/amd64,linux/arm64", "`PLATFORMS` that images are built for")
	wantedImages := flags.String("images", "", "`NAMES` of the images to build; empty: all")
	registry := flags.String("registry", "", "`REGISTRY` to push to, with or without a path; empty: none")
	insecure := flags.Bool("insecure", false, "push by plain HTTP")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *version == "" || flags.NArg() > 0 {
		return errors.New("usage: images -version VERSION [-revision REVISION] [-output FOLDER] [-platforms PLATFORMS] [-images NAMES] [-registry REGISTRY [-insecure]]")
	}
	platforms, err := parsePlatforms(*wantedPlatforms)
	if err != nil {
		return err
	}
	wanted, err := selectPrograms(*wantedImages)
	if err != nil {
		return err
	}
	vector := imageVector{}
	for _, program := range wanted {
		built, err := build(ctx, program, *version, *revision, platforms)
		if err != nil {
			return fmt.Errorf("image %s: %w", program.name, err)
		}
		if err := writeLayout(filepath.Join(*output, program.name), built, *version); err != nil {
			return fmt.Errorf("image %s: %w", program.name, err)
		}
		if *registry == "" {
			continue
		}
		if err := push(ctx, *registry+"/"+program.name+":"+*version, *insecure, built); err != nil {
			return fmt.Errorf("image %s: %w", program.name, err)
		}
		if err := vector.add(*registry, program.name, *version, built.index); err != nil {
			return fmt.Errorf("image %s: %w", program.name, err)
		}
	}
	if *registry == "" {
		return nil
	}
	return vector.write(filepath.Join(*output, vectorFile))
}

// selectPrograms returns the programs of a list of names, or all.
func selectPrograms(list string) ([]program, error) {
	if list == "" {
		return programs, nil
	}
	var wanted []program
	for _, name := range strings.Split(list, ",") {
		i := slices.IndexFunc(programs, func(program program) bool { return program.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no image %q", name)
		}
		wanted = append(wanted, programs[i])
	}
	return wanted, nil
}

func parsePlatforms(list string) ([]v1.Platform, error) {
	var platforms []v1.Platform
	for _, word := range strings.Split(list, ",") {
		platform, err := v1.ParsePlatform(word)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w", word, err)
		}
		platforms = append(platforms, *platform)
	}
	return platforms, nil
}

// image is a program's image for all platforms, with the artifacts that belong to
// it.
type image struct {
	index v1.ImageIndex
	// boms are the bills of materials of the image of each platform, by file name.
	boms map[string][]byte
	// artifacts are the same as artifacts that refer to these images.
	artifacts []v1.Image
}

// build returns the image of a program for the given platforms.
func build(ctx context.Context, program program, version, revision string, platforms []v1.Platform) (*image, error) {
	annotations := map[string]string{
		"org.opencontainers.image.title":       program.name,
		"org.opencontainers.image.description": program.description,
		"org.opencontainers.image.version":     version,
		"org.opencontainers.image.source":      source,
		"org.opencontainers.image.licenses":    licenses,
	}
	if revision != "" {
		annotations["org.opencontainers.image.revision"] = revision
	}
	result := &image{index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex), boms: map[string][]byte{}}
	for _, platform := range platforms {
		binary, err := buildBinary(ctx, program.name, version, platform)
		if err != nil {
			return nil, fmt.Errorf("platform %s: %w", platform, err)
		}
		image, err := buildImage(binary, program.name, version, platform, annotations)
		if err != nil {
			return nil, fmt.Errorf("platform %s: %w", platform, err)
		}
		bom, err := billOfMaterials(binary, program.name, version)
		if err != nil {
			return nil, fmt.Errorf("platform %s: %w", platform, err)
		}
		artifact, err := sbomArtifact(bom, image, annotations)
		if err != nil {
			return nil, fmt.Errorf("platform %s: %w", platform, err)
		}
		result.index = mutate.AppendManifests(result.index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
		result.boms[program.name+"."+strings.ReplaceAll(platform.String(), "/", "-")+".cdx.json"] = bom
		result.artifacts = append(result.artifacts, artifact)
	}
	result.index = mutate.Annotations(result.index, annotations).(v1.ImageIndex)
	return result, nil
}

func buildImage(binary []byte, program, version string, platform v1.Platform, annotations map[string]string) (v1.Image, error) {
	base, err := layer(baseFiles())
	if err != nil {
		return nil, fmt.Errorf("make layer of the base: %w", err)
	}
	top, err := layer([]file{{path: program, mode: 0o555, content: binary}})
	if err != nil {
		return nil, fmt.Errorf("make layer of the binary: %w", err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, base, top); err != nil {
		return nil, fmt.Errorf("add layers: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	config.Config.User = fmt.Sprintf("%d:%d", nonRoot, nonRoot)
	config.Config.WorkingDir = "/"
	config.Config.Entrypoint = []string{"/" + program}
	config.Config.Labels = annotations
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, fmt.Errorf("set configuration: %w", err)
	}
	image = mutate.Annotations(image, annotations).(v1.Image)

	size, err := compressedSize(image)
	if err != nil {
		return nil, err
	}
	slog.Info("Built", "image", program+":"+version, "platform", platform.String(), "compressedMiB", fmt.Sprintf("%.1f", float64(size)/(1<<20)))
	return image, nil
}

// buildBinary has hack/build.sh build a program for a platform.
func buildBinary(ctx context.Context, program, version string, platform v1.Platform) ([]byte, error) {
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, "hack/build.sh", program) //nolint:gosec // a program of ours
	cmd.Env = append(os.Environ(), "GOOS="+platform.OS, "GOARCH="+platform.Architecture, "OUTPUT="+dir, "VERSION="+version)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", program, err, strings.TrimSpace(output.String()))
	}
	return os.ReadFile(filepath.Join(dir, program)) //nolint:gosec // it was just built
}

// writeLayout replaces the layout in a folder, and the bills of materials beside it.
func writeLayout(dir string, built *image, version string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove earlier layout: %w", err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := path.AppendIndex(built.index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version})); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	for name, bom := range built.boms {
		if err := os.WriteFile(filepath.Join(filepath.Dir(dir), name), bom, 0o644); err != nil { //nolint:gosec // for everyone to read
			return fmt.Errorf("write bill of materials: %w", err)
		}
	}
	digest, err := built.index.Digest()
	if err != nil {
		return fmt.Errorf("read digest: %w", err)
	}
	slog.Info("Wrote", "layout", dir, "digest", digest.String())
	return nil
}

// push pushes an image, and then what refers to it.
func push(ctx context.Context, tag string, insecure bool, built *image) error {
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	reference, err := name.ParseReference(tag, options...)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	pushOptions := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if err := remote.WriteIndex(reference, built.index, pushOptions...); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	for _, artifact := range built.artifacts {
		digest, err := artifact.Digest()
		if err != nil {
			return fmt.Errorf("push bill of materials: %w", err)
		}
		if err := remote.Write(reference.Context().Digest(digest.String()), artifact, pushOptions...); err != nil {
			return fmt.Errorf("push bill of materials: %w", err)
		}
	}
	slog.Info("Pushed", "image", reference.Name())
	return nil
}

func compressedSize(image v1.Image) (int64, error) {
	layers, err := image.Layers()
	if err != nil {
		return 0, fmt.Errorf("read layers: %w", err)
	}
	total := int64(0)
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return 0, fmt.Errorf("read size of a layer: %w", err)
		}
		total += size
	}
	return total, nil
}
