// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// errLocked says that another process has the volume. Two would evict what the
// other is about to serve.
var errLocked = errors.New("another process uses this volume")

// lockVolume makes a volume that of this process, as long as the file is open and
// the process lives.
func lockVolume(rootDirectory string, log *slog.Logger) (*os.File, error) {
	// The folder itself: a volume that is full takes no file.
	file, err := os.Open(rootDirectory) //nolint:gosec // the folder is the operator's to choose
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("%s: %w", rootDirectory, errLocked), file.Close())
	case err != nil:
		log.Warn("The volume cannot be locked, so nothing keeps a second cache from using it", "folder", rootDirectory, "error", err)
	}
	return file, nil
}
