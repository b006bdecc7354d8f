package e2e

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// marked are the tests whose outcome depends on the functions' settings, by setting. In each mode, a short run repeats
// only these (E2E_ONLY). A long one repeats all tests, and so finds those that should be marked. What each store must do in
// the same way, each store's own tests check in every run (pkg/kv/kvtest).
var marked = map[string][]func(*testing.T){
	"token": {TestToken, TestReadToken, TestPreflight, TestDiscoveryMatchesTheEnvironment, TestSmoke},
	"cache": {
		TestANewInstanceWarmsItsKeys, TestAnUpdateIsSeenByEveryInstanceInTime, TestReadsReportTheirCache,
		TestACallerSeesItsOwnWritesAtOnce, TestUnchangedResponsesAreNotSentAgain, TestTimestampsAreThoseOfTheResponse, TestReadYourWrites,
		TestDiscoveryMatchesTheEnvironment, TestSmoke,
	},
	"store": {
		TestBlobFunctionsAlwaysUseBlobs, TestWritesAreMirrored, TestQueriesNeedSupabase, TestEntriesNeedSupabase, TestReadsReportTheirCache,
		TestUnchangedResponsesAreNotSentAgain, TestACallerSeesItsOwnWritesAtOnce, TestReadYourWrites, TestDiscoveryMatchesTheEnvironment,
		TestSmoke,
	},
}

// choose restricts the run to the tests of E2E_ONLY or E2E_SMOKE, unless -run names tests.
func choose() error {
	only := os.Getenv("E2E_ONLY")
	switch {
	case testing.Short() || os.Getenv("E2E_SMOKE") == "1":
		return setDefault("test.run", "^TestSmoke")
	case site.hostURL == "" && site.writesBlobs:
		fmt.Fprintln(os.Stderr, "Netlify Blobs allows 500 requests a minute, and the suite makes some ten thousand: only the smoke tests run")
		return setDefault("test.run", "^TestSmoke")
	case only == "":
		return nil
	case marked[only] == nil:
		return fmt.Errorf("E2E_ONLY must be token, cache or store, got %q", only)
	}
	var names []string
	for _, test := range marked[only] {
		full := runtime.FuncForPC(reflect.ValueOf(test).Pointer()).Name()
		names = append(names, full[strings.LastIndex(full, ".")+1:])
	}
	if slices.Sort(names); len(slices.Compact(names)) != len(marked[only]) {
		return errors.New("a test is marked twice: " + only)
	}
	return setDefault("test.run", "^("+strings.Join(names, "|")+")$")
}
