// Package machine ends the build with a sentence where Ringwall does not run: on 32 bits, for which the nftables
// library has numbers too large. The compiler's own words about that are in another project's files, and help nobody.
package machine
