// Package hosts knows which addresses stand behind names, and which are this machine's own: the [Resolver] looks host
// names up again and again and keeps the last good answer, [OwnPrefixes] and the [Watcher] list the addresses that no
// ban may ever touch.
package hosts
