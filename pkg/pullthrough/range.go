// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"strconv"
	"strings"
)

// byteRange is a part of a blob. The zero value is all of it.
type byteRange struct {
	// offset is where it begins, length how long it is.
	offset, length int64
	// partial says that it is a part, and not all of the blob.
	partial bool
}

// parseRange reads the Range header of RFC 9110, section 14.2. What is more than
// one range, or of no known form, asks for all of the blob, and so does any range
// of a blob whose size is not known. It returns false if the blob has no byte of
// the range.
func parseRange(value string, size int64) (byteRange, bool) {
	whole := byteRange{length: size}
	spec, isBytes := strings.CutPrefix(strings.TrimSpace(value), "bytes=")
	first, last, isRange := strings.Cut(strings.TrimSpace(spec), "-")
	if !isBytes || !isRange || size == unknownSize {
		return whole, true
	}
	if first == "" {
		return suffixRange(last, size)
	}
	offset, ok := parsePosition(first)
	if !ok {
		return whole, true
	}
	end := size - 1
	if last != "" {
		if end, ok = parsePosition(last); !ok {
			return whole, true
		}
	}
	if offset >= size || end < offset {
		return byteRange{}, false
	}
	return byteRange{offset: offset, length: min(end, size-1) - offset + 1, partial: true}, true
}

// suffixRange is the range of so many bytes at the end.
func suffixRange(value string, size int64) (byteRange, bool) {
	length, ok := parsePosition(value)
	switch {
	case !ok:
		return byteRange{length: size}, true
	case length == 0 || size == 0:
		return byteRange{}, false
	}
	length = min(length, size)
	return byteRange{offset: size - length, length: length, partial: true}, true
}

// parsePosition reads digits only: no sign.
func parsePosition(digits string) (int64, bool) {
	number, err := strconv.ParseUint(digits, 10, 63)
	return int64(number), err == nil
}
