// Package netns makes network namespaces, joins them with cables, and runs functions and programs in them. They have
// no name and no file: each lives as long as its descriptor, its processes and its sockets, and so never outlives them.
package netns
