// Command sbom writes which modules a program was made of, as the Go tool wrote it into the program itself: CycloneDX,
// JSON.
//
//	go -C deploy run ./packages/sbom FILE VERSION
//
// SOURCE_DATE_EPOCH is the time that the list bears, in seconds since 1970. It has no serial number, so that the same
// program has the same list.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(args []string, epoch string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: go -C deploy run ./packages/sbom FILE VERSION")
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	program, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return err
	}
	hash := sha256.Sum256(program)
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: time.Unix(seconds, 0).UTC().Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef:     "ringwall",
			Type:       cyclonedx.ComponentTypeApplication,
			Name:       path.Base(info.Path),
			Version:    args[1],
			PackageURL: packageURL(info.Main.Path, "v"+args[1]),
			Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(hash[:])}},
			Properties: settings(info.Settings),
		},
	}
	// Scanners know Go's own library by this name: what is found in it is mended by a newer Go.
	standard := strings.TrimPrefix(info.GoVersion, "go")
	parts := []cyclonedx.Component{{
		BOMRef: packageURL("std", standard), Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: standard,
		PackageURL: packageURL("std", standard),
	}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		url := packageURL(module.Path, module.Version)
		part := cyclonedx.Component{
			BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: module.Path, Version: module.Version,
			PackageURL: url,
		}
		if module.Sum != "" { // of a list of files, as in go.sum: no hash of anything that one can download
			part.Properties = &[]cyclonedx.Property{{Name: "go.sum", Value: module.Sum}}
		}
		parts = append(parts, part)
	}
	bom.Components = &parts
	return cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).Encode(bom)
}

// packageURL names a module as scanners look for it (purl-spec, type golang).
func packageURL(module, version string) string {
	return "pkg:golang/" + module + "@" + strings.NewReplacer("+", "%2B", "~", "-").Replace(version)
}

// settings are for what, and of which commit, the program was made.
func settings(all []debug.BuildSetting) *[]cyclonedx.Property {
	var properties []cyclonedx.Property
	for _, s := range all {
		properties = append(properties, cyclonedx.Property{Name: "go.build." + s.Key, Value: s.Value})
	}
	return &properties
}
