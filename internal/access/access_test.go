package access

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

func TestACallThatDeclaresNobodyIsRefused(t *testing.T) {
	root := caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true}
	if err := NewRules().Check(root, "/warren.v1.NewService/Call"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("got %v", err)
	}
}

// unaudited RPCs change something that members do by themselves all the time.
var unaudited = []string{
	warrenv1connect.MembershipServiceRenewProcedure,
	warrenv1connect.MembershipServiceAnnounceManagerProcedure,
	warrenv1connect.SessionServiceAttendProcedure,
	warrenv1connect.SessionServiceRelayProcedure,
}

func TestEveryRPCDeclaresWhoMayCallIt(t *testing.T) {
	seen := 0
	for method := range Methods() {
		seen++
		access := Declared(method)
		if len(access.GetRoles()) == 0 {
			t.Errorf("%s: nobody may call it: give it the option (warren.v1.access)", method.FullName())
		}
		if slices.Contains(access.GetRoles(), warrenv1.Role_ROLE_UNSPECIFIED) {
			t.Errorf("%s: its roles hold the unspecified one", method.FullName())
		}
		reads := slices.ContainsFunc([]string{"Get", "List", "Watch", "Stream", "Check", "Explain"}, func(verb string) bool {
			return strings.HasPrefix(string(method.Name()), verb)
		})
		switch procedure := Procedure(method); {
		case slices.Contains(unaudited, procedure), procedure == warrenv1connect.MembershipServiceGetJoinTokenProcedure,
			procedure == warrenv1connect.TrustServiceGetUnlockKeyProcedure: // these may make what they get
		case access.GetWrite() == reads:
			t.Errorf("%s: write is %v", method.FullName(), access.GetWrite())
		}
	}
	if seen < 30 {
		t.Errorf("only %d RPCs found", seen)
	}
}

// TestWhoIsOnAnotherManagersMachineIsNotOnThisOne: a manager that passes a call on says truly that its caller
// was local, and a stolen manager's certificate says it of anybody.
func TestWhoIsOnAnotherManagersMachineIsNotOnThisOne(t *testing.T) {
	root := caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true}
	if err := NewRules().Check(root, warrenv1connect.ManagerServiceRecoverManagerProcedure); err != nil {
		t.Errorf("root on this machine: %v", err)
	}
	root.Via = "m2"
	if err := NewRules().Check(root, warrenv1connect.ManagerServiceRecoverManagerProcedure); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("root on another machine: %v", err)
	}
}
