// Package boot tests the installed service in a machine with a real systemd as PID 1: what a start, a reload, a restore
// from a backup and a reboot do to bans, whether whatever says that all is well is right, and how other firewalls and
// Ringwall get on with each other. Asterisk is mostly played by the test; one test has the real one, with the README's
// own lines and an attack by SIP, and all that befalls it with RINGWALL_BOOT_ASTERISK=full.
package boot
