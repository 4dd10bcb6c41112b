package adminclient

import (
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// TestRules asks the daemon what its policy would say of a connection.
func (c Client) TestRules(req *adminpb.TestRulesRequest) (resp *adminpb.TestRulesResponse, err error) {
	err = c.askOver(timeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err = adminpb.NewRulesClient(conn).Test(ctx, req)
		return err
	})
	return resp, err
}

// PrintTest writes what a policy would say, and reports whether it would let the connection be in all directions asked for.
func PrintTest(w io.Writer, resp *adminpb.TestRulesResponse) (allowed bool) {
	allowed = true
	line := func(what, text string) { fmt.Fprintf(w, "%-9s %s\n", what, cli.OneLine(text)) }
	for _, o := range resp.GetOutcomes() {
		allowed = allowed && o.GetAllowed()
		by := o.GetRule()
		if o.GetText() != "" {
			by += ": " + o.GetText()
		}
		switch {
		case by == "":
			line(o.GetDirection(), "allowed: there are no rules")
		case o.GetDenied():
			line(o.GetDirection(), "refused, denied at once by "+by)
		case o.GetWould():
			line(o.GetDirection(), "allowed, since the rules are permissive; it would be refused by "+by)
		case o.GetAllowed():
			line(o.GetDirection(), "allowed by "+by)
		default:
			line(o.GetDirection(), "refused by "+by)
		}
		for _, l := range o.GetUnless() {
			line("", "unless the peer's certificate is as in "+l.GetRule()+": "+l.GetText())
		}
		if more := o.GetMore(); more > 0 {
			line("", fmt.Sprintf("and %d lines more that go by the peer's certificate", more))
		}
	}
	if groups := resp.GetLocalGroups(); len(groups) > 0 {
		line("groups", "of the local account: "+strings.Join(groups, " "))
	}
	return allowed
}
