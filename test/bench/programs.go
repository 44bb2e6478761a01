// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// launch is what a program is configured with.
type launch struct {
	// dir is a folder of the process alone. A cache that is started again in the
	// same folder is warm.
	dir string
	// address is where to serve, debugAddress where our cache tells its health.
	address, debugAddress string
	// remote is the URL of the upstream.
	remote string
	// certificate is nil for plain HTTP.
	certificate *certificate
}

func (l launch) target() target {
	if l.certificate == nil {
		return target{url: "http://" + l.address}
	}
	return target{url: "https://" + l.address, roots: l.certificate.roots}
}

// program is a server to measure.
type program struct {
	name, binary string
	// configure writes the configuration and returns the arguments.
	configure func(launch) ([]string, error)
	// ready is the URL that answers with status 200 when the server is ready.
	ready func(launch) string
}

// object is a part of a configuration file. JSON is YAML, too.
type object map[string]any

func ourCache(binary string) *program {
	return &program{
		name: "ours", binary: binary,
		ready: func(l launch) string { return "http://" + l.debugAddress + "/debug/health" },
		configure: func(l launch) ([]string, error) {
			server := object{"address": l.address}
			if l.certificate != nil {
				server["tls"] = object{"certFile": l.certificate.certFile, "keyFile": l.certificate.keyFile}
			}
			file, err := writeConfig(l, object{
				"apiVersion": "config.registry.extensions.gardener.cloud/v1alpha1",
				"kind":       "CacheConfiguration",
				"upstream":   "registry.example.com",
				"remoteURL":  l.remote,
				"storage":    object{"rootDirectory": filepath.Join(l.dir, "storage")},
				"server":     server,
				"debug":      object{"address": l.debugAddress},
				"log":        object{"level": "warn"},
			})
			return []string{"--config", file}, err
		},
	}
}

// stockRegistry is distribution with the configuration that it ships as an
// example, as a proxy.
func stockRegistry(binary string) *program {
	return &program{
		name: "stock", binary: binary,
		ready: func(l launch) string { return l.target().url + "/v2/" },
		configure: func(l launch) ([]string, error) {
			server := object{"addr": l.address, "headers": object{"X-Content-Type-Options": []string{"nosniff"}}}
			if l.certificate != nil {
				server["tls"] = object{"certificate": l.certificate.certFile, "key": l.certificate.keyFile, "minimumtls": "tls1.3"}
			}
			file, err := writeConfig(l, object{
				"version": "0.1",
				"log":     object{"level": "warn", "accesslog": object{"disabled": true}},
				"storage": object{
					"cache":      object{"blobdescriptor": "inmemory"},
					"filesystem": object{"rootdirectory": filepath.Join(l.dir, "storage")},
					"tag":        object{"concurrencylimit": 8},
				},
				"http":   server,
				"health": object{"storagedriver": object{"enabled": true, "interval": "10s", "threshold": 3}},
				"proxy":  object{"remoteurl": l.remote, "ttl": "168h"},
			})
			return []string{"serve", file}, err
		},
	}
}

func writeConfig(l launch, config object) (string, error) {
	raw, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode configuration: %w", err)
	}
	return writeFile(l, "config.yaml", raw)
}

func writeFile(l launch, name string, raw []byte) (string, error) {
	file := filepath.Join(l.dir, name)
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return file, nil
}

// nginxConfig has the address, the lines for TLS, the folder of the files, and
// the path and digest of the manifest.
const nginxConfig = `
daemon off;
master_process off; # one process to measure, and to end
pid nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  default_type application/octet-stream;
  server {
    listen %[1]s;
    %[2]s
    root %[3]s;
    location %[4]s {
      add_header Docker-Content-Digest %[5]s;
    }
  }
}
`

// nginxServer serves the image as files below root, with the settings of
// Debian's nginx.conf.
func nginxServer(binary, root string, image *image) *program {
	manifests := "/v2/" + repository + "/manifests/"
	return &program{
		name: "nginx", binary: binary,
		ready: func(l launch) string { return l.target().url + manifests + tag },
		configure: func(l launch) ([]string, error) {
			listen, tls := l.address, ""
			if l.certificate != nil {
				listen += " ssl"
				tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.3;", l.certificate.certFile, l.certificate.keyFile)
			}
			file, err := writeFile(l, "nginx.conf", fmt.Appendf(nil, nginxConfig, listen, tls, root, manifests, image.manifest.Digest))
			return []string{"-e", "stderr", "-p", l.dir, "-c", file}, err
		},
	}
}

// writeImage lays the image out as files that nginx can serve to clients.
func writeImage(root string, image *image) error {
	base := filepath.Join(root, "v2", filepath.FromSlash(repository))
	files := map[string][]byte{
		filepath.Join("manifests", tag):                   image.manifest.data,
		filepath.Join("manifests", image.manifest.Digest): image.manifest.data,
	}
	for digest, blob := range image.blobs {
		files[filepath.Join("blobs", digest)] = blob.data
	}
	for name, data := range files {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return fmt.Errorf("write the image for nginx: %w", err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("write the image for nginx: %w", err)
		}
	}
	return nil
}
