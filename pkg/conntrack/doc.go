// Package conntrack asks the kernel's connection tracking to which port a packet came before a NAT changed it, as
// Docker does with published ports: a chain at prerouting priority -300 sees that port, and Asterisk's events tell the
// other.
package conntrack
