// Package fetch gets lists of attackers from where they are published, and keeps the last good copy of each on the
// disk: what a server sends can at worst be refused, and then the copy stays in force.
package fetch
