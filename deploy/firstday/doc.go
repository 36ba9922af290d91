// Package firstday types what README.md and deploy/docs tell an administrator to type, on a Debian with Asterisk.
package firstday
