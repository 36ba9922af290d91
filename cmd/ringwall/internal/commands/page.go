package commands

import (
	"net/url"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/printable"
)

// sshForward is the argument of ssh -L that brings the page to another machine.
func sshForward(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Port() == "" {
		return "9646:127.0.0.1:9646"
	}
	return u.Port() + ":" + printable.String(u.Host)
}

func (c *commands) pageCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "page",
		Short: "Print the address of the status page, to unban and allow there by a click",
		Long: `Print the address of the status page.

Where the page is on loopback (metrics.listen), the address opens it with the right to unban and to allow: once,
within five minutes, and for an hour. Whoever has the address has that right, so pass it on to nobody. From another
machine, reach the page through a tunnel such as: ssh -L 9646:127.0.0.1:9646 PBX`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			res, err := client.Page(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(res)
			}
			c.sayf("%s", printable.Line(res.Address))
			if res.Writable {
				c.sayf("")
				c.sayf("Open it in a browser on this machine, or through: ssh -L %s PBX", sshForward(res.Address))
				c.sayf("It opens once, and lets you unban and allow there for an hour.")
				if res.Expires != nil {
					c.sayf("It can be opened until %s.", c.shortTime(*res.Expires))
				}
			}
			if res.Note != "" {
				c.sayf("%s", toSentence(res.Note))
			}
			return nil
		},
	}
}
