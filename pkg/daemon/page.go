package daemon

import (
	"context"

	"github.com/ringwall/ringwall/pkg/control"
)

// Page implements control.Backend.
func (b backend) Page(context.Context, control.Peer) (control.PageResult, error) {
	return control.PageResult{}, control.Refused("set metrics.listen and metrics.page: true, then: systemctl restart ringwall",
		"there is no status page: the configuration turns it off")
}
