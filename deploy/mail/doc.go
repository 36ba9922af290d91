// Package mail lets the program's notifications reach people through a real mail server.
package mail
