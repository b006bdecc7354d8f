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

// marked are the tests whose outcome depends on how the functions are set, by what they depend on. In each mode, a short run repeats
// these alone (E2E_ONLY); a long one repeats all, and so finds a test that should be marked.
var marked = map[string][]func(*testing.T){
	"token": {TestToken, TestReadToken, TestPreflight, TestTheSiteIsWhatItsEnvironmentSays, TestSmoke},
	"cache": {
		TestANewInstanceKnowsWhatItWasToldToWarm, TestAnUpdateIsSeenByEveryInstanceInTime, TestReadsSayHowTheyWereAnswered,
		TestACallerSeesItsOwnWritesAtOnce, TestAnUnchangedAnswerIsNotSentAgain, TestTimestampsAreThoseOfTheAnswer, TestReadYourWrites,
		TestTheSiteIsWhatItsEnvironmentSays, TestSmoke,
	},
	"store": {
		// What the other store says or refuses.
		TestTheFunctionsForTheWayBackAlwaysUseBlobs, TestWritesAreMirrored, TestQueriesNeedSupabase, TestReadsSayHowTheyWereAnswered,
		TestAnUnchangedAnswerIsNotSentAgain, TestACallerSeesItsOwnWritesAtOnce, TestReadYourWrites, TestTheSiteIsWhatItsEnvironmentSays,
		TestSmoke,
		// What each store must do in the same way, with code of its own.
		TestUpsertCreatesAndUpdates, TestUpsertBody, TestValuesComeBackAsWritten, TestKeys, TestKeyLimit, TestMemberLimit, TestIndexesLimit,
		TestGetForms, TestDelete, TestIndexEntry, TestIndexKeyThatHoldsAnEntry, TestReplaceIndexEntry, TestDeleteIndexEntry,
		TestIndexesOfAnEntry, TestListByIndex, TestListIsEmpty, TestListIncludeValues, TestPrefixIsLiteral, TestSort, TestCursorSurvives,
		TestACursorGoesOnWithItsOwnQuestion,
		// Races.
		TestFiftyUpsertsToOneKey, TestFiftyMembersToOneIndex, TestUpsertsThatCrossEachOther, TestCreateAndDeleteAtOnce,
	},
}

// choose restricts the run to what E2E_ONLY or E2E_SMOKE asks for, unless -run names tests.
func choose() error {
	only := os.Getenv("E2E_ONLY")
	switch {
	case testing.Short() || os.Getenv("E2E_SMOKE") == "1":
		return setDefault("test.run", "^TestSmoke")
	case site.hostURL == "" && site.writesBlobs:
		fmt.Fprintln(os.Stderr, "Netlify Blobs takes 500 requests a minute, and the suite makes some ten thousand: only the smoke tests are run")
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
