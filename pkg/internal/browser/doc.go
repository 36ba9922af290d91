// Package browser drives Chromium for tests of the status page.
package browser
