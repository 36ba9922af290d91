// Package doctor proves the whole chain before the first attack does: configuration, Asterisk's manager interface, the
// kernel's table, the machine around them. Each link is a [Check] with the fix. Nothing that it does lasts.
package doctor
