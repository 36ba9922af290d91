package doctor

import (
	"fmt"
	"strconv"

	"github.com/ringwall/ringwall/pkg/asterisk/managerconf"
)

// managerSetting reads one key of a user from manager.conf and the files that it includes, and says in which file the
// user is. Templates are not followed: a user that is made of one is not understood.
func managerSetting(path, user, key string) (value, file string, err error) {
	c, err := managerconf.Read("/", path)
	if err != nil {
		return "", "", err
	}
	s, ok := c.Section(user)
	switch value := s.Value(key); {
	case !ok:
		return "", "", fmt.Errorf("no user [%s] in %s", user, path)
	case s.OfTemplate && value == "":
		return "", "", fmt.Errorf("[%s] in %s is made of a template", user, s.File)
	default:
		return value, s.File, nil
	}
}

// milliseconds reads a number as Asterisk does; 0 for anything else.
func milliseconds(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
