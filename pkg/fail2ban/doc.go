// Package fail2ban reads what fail2ban leaves behind, its jail files and its bans, and says what of it Ringwall can
// carry on: bans with the time they have left, the allow list, and a policy that comes near the old numbers. It changes
// nothing.
package fail2ban
