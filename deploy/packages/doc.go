// Package packages tests Ringwall's .deb and .rpm: it builds them, and installs, upgrades and removes them in a Debian
// of its own.
package packages
