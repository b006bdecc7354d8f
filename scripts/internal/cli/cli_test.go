package cli

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// full is a disk without space.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestAResultThatCannotBePrintedIsAnError(t *testing.T) {
	t.Parallel()
	words := func(out io.Writer, n int) { fmt.Fprintln(out, n) }
	require.ErrorIs(t, Print(full{}, Output{}, 1, words), errFull, "as text")
	require.ErrorIs(t, Print(full{}, Output{JSON: true}, 1, words), errFull, "as JSON")
	require.NoError(t, Print(full{}, Output{Quiet: true}, 1, words))
}
