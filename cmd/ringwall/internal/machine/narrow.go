//go:build 386 || arm || mips || mipsle

package machine

// The compiler prints the text, since it is no number.
const _ int = "Ringwall needs a 64-bit system: on a Raspberry Pi the 64-bit one, and in Go GOARCH=amd64 or GOARCH=arm64"
